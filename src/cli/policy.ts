/** `sluice policy …`: what is in force, why a flow passes or not, what a change would do. */
import { type Command, InvalidArgumentError } from 'commander';
import type {
  DirectionExplanation,
  EndpointPolicyInfo,
  ExplainAnswer,
  PreviewAnswer,
  PreviewRequest,
} from '../api/agent-api.ts';
import type { NetworkPolicy } from '../api/kubernetes.ts';
import { SluiceError } from '../core/error.ts';
import { parsePortQuery } from '../policy/judge.ts';
import { isNetworkPolicy } from '../policy/lint-world.ts';
import { askAgent, type AgentTransport } from './agent-client.ts';
import { askAll, findAgents, tellProblems, withTarget, type TargetFlags } from './agents.ts';
import { examples } from './endpoint.ts';
import { podPath, print, printJson, warn } from './output.ts';
import { renderExplain, renderPolicy } from './render.ts';
import { renderCheck, renderPreview, type MergedPreview } from './render-preview.ts';

export function registerPolicyCommands(program: Command): void {
  const policy = program.command('policy').description('network policy: what is in force, why, and what a change does');
  withTarget(policy.command('get'))
    .description('the policy of a pod, as rules and as entries in the kernel')
    .argument('<pod>', 'NAMESPACE/POD, or POD with -n')
    .option('-n, --namespace <name>', 'namespace of a POD that does not say it', 'default')
    .addHelpText('after', examples('sluice policy get demo/web', 'sluice policy get web -n demo --json'))
    .action(get);
  withTarget(policy.command('explain'))
    .description('may A talk to B, and which rule decides, or what every rule lacks')
    .requiredOption('--from <pod or address>', 'NAMESPACE/POD or an address')
    .requiredOption('--to <pod or address>', 'NAMESPACE/POD or an address')
    .option('--port <port>', '80/tcp, 53/udp, 9003/sctp, icmp (default: every port)', checkPort)
    .addHelpText(
      'after',
      examples(
        'sluice policy explain --from demo/client --to demo/web --port 80/tcp',
        'sluice policy explain --from demo/client --to 192.0.2.1 --json',
      ),
    )
    .action(explain);
  policy
    .command('check')
    .description('what is wrong, or probably not meant, in policies of files; needs no cluster. Exit status 1: errors')
    .argument('<files...>', 'YAML or JSON, directories of it, or - ; pods and workloads among them are the world')
    .option('--strict', 'exit status 1 for warnings too', false)
    .option('--json', 'for programs', false)
    .addHelpText(
      'after',
      examples('sluice policy check policy.yaml app.yaml', 'kubectl kustomize . | sluice policy check -'),
    )
    .action(check);
  withTarget(policy.command('preview'))
    .description('which flows and which known connections would change if the policies were applied; applies nothing')
    .argument('<files...>', 'YAML or JSON, directories of it, or -')
    .option('--delete', 'as if the policies of the files were deleted', false)
    .addHelpText(
      'after',
      examples('sluice policy preview policy.yaml', 'sluice policy preview --delete policy.yaml --json'),
    )
    .action(preview);
}

function checkPort(text: string): string {
  if (parsePortQuery(text) === undefined) throw new InvalidArgumentError('Write 80/tcp, 53/udp, 9003/sctp or icmp.');
  return text;
}

async function get(pod: string, flags: TargetFlags & { readonly namespace: string }): Promise<void> {
  const { namespace, name } = podPath(pod, flags.namespace);
  const path = `/v1/endpoints/${encodeURIComponent(namespace)}/${encodeURIComponent(name)}/policy`;
  const agents = await findAgents(flags, process.env);
  const found = (await askAll(agents, (agent) => askAgent<EndpointPolicyInfo[]>(agent, { path }), warn)).flat();
  if (flags.json) printJson(found);
  else print(found.map(renderPolicy).join('\n\n'));
  await tellProblems(agents);
}

interface ExplainFlags extends TargetFlags {
  readonly from: string;
  readonly to: string;
  readonly port?: string;
}

async function explain(flags: ExplainFlags): Promise<void> {
  const { from, to, port } = flags;
  const query = new URLSearchParams({ from, to, ...(port !== undefined && { port }) });
  const agents = await findAgents(flags, process.env);
  const ask = (agent: AgentTransport): Promise<ExplainAnswer> =>
    askAgent(agent, { path: `/v1/policy/explain?${query.toString()}` });
  const answer = mergeExplanations(await askAll(agents, ask, warn));
  if (flags.json) printJson(answer);
  else print(renderExplain(answer));
}

/** Every agent explains the same objects; what the kernel says, each side's own node knows. */
export function mergeExplanations(answers: readonly ExplainAnswer[]): ExplainAnswer {
  const [first] = answers;
  if (first === undefined) throw new RangeError('no answers');
  const sideOf = (path: number, direction: 'egress' | 'ingress'): DirectionExplanation | undefined => {
    const sides = answers.flatMap((answer) => answer.paths[path]?.[direction] ?? []);
    return sides.find(({ kernel }) => kernel !== undefined);
  };
  const paths = first.paths.map((path, index) => ({
    ...path,
    egress: sideOf(index, 'egress') ?? path.egress,
    ingress: sideOf(index, 'ingress') ?? path.ingress,
  }));
  return { ...first, paths };
}

interface CheckFlags {
  readonly strict: boolean;
  readonly json: boolean;
}

async function check(files: readonly string[], flags: CheckFlags): Promise<void> {
  const [{ readManifests }, { lintPolicies }] = await Promise.all([
    import('./manifest-files.ts'),
    import('../policy/lint.ts'),
  ]);
  const { objects, faults } = readManifests(files);
  const result = lintPolicies(objects);
  if (flags.json) printJson({ ...result, faults });
  else print(renderCheck(result, faults));
  const grave = flags.strict ? ['error', 'warning'] : ['error'];
  if (faults.length > 0 || result.findings.some(({ severity }) => grave.includes(severity))) process.exitCode = 1;
}

async function preview(files: readonly string[], flags: TargetFlags & { readonly delete: boolean }): Promise<void> {
  const policies = await policiesIn(files);
  const nameOf = ({ metadata }: NetworkPolicy) => ({
    namespace: metadata?.namespace ?? 'default',
    name: metadata?.name ?? '',
  });
  const body: PreviewRequest = flags.delete
    ? { apply: [], remove: policies.map(nameOf) }
    : { apply: policies, remove: [] };
  const agents = await findAgents(flags, process.env);
  const ask = (agent: AgentTransport): Promise<PreviewAnswer> =>
    askAgent(agent, { method: 'POST', path: '/v1/policy/preview', body });
  const merged = mergePreviews(await askAll(agents, ask, warn));
  if (flags.json) printJson(merged);
  else print(renderPreview(merged));
}

/** Flows are the whole cluster's in every answer; connections are each node's own. */
export function mergePreviews(answers: readonly PreviewAnswer[]): MergedPreview {
  const [first] = answers;
  if (first === undefined) throw new RangeError('no answers');
  return {
    ...first,
    nodes: answers.map(({ node }) => node),
    connections: answers.flatMap(({ connections }) => connections),
    connectionsExamined: answers.reduce((sum, { connectionsExamined }) => sum + connectionsExamined, 0),
  };
}

async function policiesIn(files: readonly string[]): Promise<NetworkPolicy[]> {
  const { readManifests } = await import('./manifest-files.ts');
  const { objects, faults } = readManifests(files);
  const [fault] = faults;
  if (fault !== undefined) throw invalid(`${fault.file}:${fault.line}`, fault.message, 'correct the file');
  const policies = objects.flatMap(({ object }) => (isNetworkPolicy(object) ? [object] : []));
  if (policies.length > 0) return policies;
  throw invalid(files.join(', '), 'there is no NetworkPolicy of networking.k8s.io', 'name files that hold one');
}

function invalid(object: string, what: string, remedy: string): SluiceError {
  return new SluiceError({ code: 'invalid_resource', operation: 'read policies of', object, what, remedy });
}
