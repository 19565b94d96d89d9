/** batch/v1. */
export const batchTypes = `
Job: apiVersion=s kind=s metadata=ObjectMeta#1 spec=JobSpec#2 status=JobStatus#3
JobSpec: parallelism?=i32#1 completions?=i32#2 activeDeadlineSeconds?=i64#3 selector=LabelSelector#4 manualSelector?=b#5
  template*=PodTemplateSpec#6 backoffLimit?=i32#7 ttlSecondsAfterFinished?=i32#8 completionMode?=s#9 suspend?=b#10
  podFailurePolicy=any backoffLimitPerIndex?=i32#12 maxFailedIndexes?=i32#13 podReplacementPolicy?=s#14 managedBy?=s#15
  successPolicy=any
JobStatus: conditions=[JobCondition]@type#1 startTime=t#2 completionTime=t#3 active=i32#4 succeeded=i32#5 failed=i32#6
  completedIndexes=s#7 uncountedTerminatedPods=any ready?=i32#9 failedIndexes?=s#10 terminating?=i32#11
JobCondition: type*=s#1 status*=s#2 lastProbeTime=t#3 lastTransitionTime=t#4 reason=s#5 message=s#6
JobTemplateSpec: metadata=ObjectMeta#1 spec=JobSpec#2
CronJob: apiVersion=s kind=s metadata=ObjectMeta#1 spec=CronJobSpec#2 status=CronJobStatus#3
CronJobSpec: schedule*=s#1 startingDeadlineSeconds?=i64#2 concurrencyPolicy=s#3 suspend?=b#4 jobTemplate*=JobTemplateSpec#5
  successfulJobsHistoryLimit?=i32#6 failedJobsHistoryLimit?=i32#7 timeZone?=s#8
CronJobStatus: active=[ObjectReference]#1 lastScheduleTime=t#4 lastSuccessfulTime=t#5
`;
