import type { MultusConfigStatus, SpiderMultusConfig, StatusCondition } from '../api/spidermultusconfig.ts';
import { attachmentName } from './attachment.ts';
import { timestamp } from '../core/timestamp.ts';

/** status of a SpiderMultusConfig: the attachment's name, and the condition Ready. Spiderpool has none. */
export function attachmentStatus(
  { metadata, status: before, ...rest }: SpiderMultusConfig,
  { isReady, reason, message }: { readonly isReady: boolean; readonly reason: string; readonly message: string },
  nowMs: number,
): MultusConfigStatus {
  const { generation } = metadata;
  const observed = generation === undefined ? {} : { observedGeneration: generation };
  const conditions = before?.conditions ?? [];
  const known = conditions.find(({ type }) => type === 'Ready');
  const status = isReady ? 'True' : 'False';
  const ready: StatusCondition = {
    ...{ type: 'Ready', status, ...observed },
    lastTransitionTime: known?.status === status ? known.lastTransitionTime : timestamp(nowMs),
    ...{ reason, message: message.slice(0, maxMessageLength) },
  };
  const attachment = isReady ? attachmentName({ metadata, ...rest }) : before?.attachment;
  return {
    ...before,
    ...observed,
    ...(attachment === undefined ? {} : { attachment }),
    conditions: [...conditions.filter(({ type }) => type !== 'Ready'), ready],
  };
}

/** Of metav1.Condition. */
const maxMessageLength = 32_768;
