/** Explanations and previews: what the API objects say (pure, src/policy), beside what this node's kernel holds. */
import type {
  DirectionExplanation,
  ExplainAnswer,
  Party,
  PreviewAnswer,
  PreviewRequest,
  PolicyDirection,
} from '../../api/agent-api.ts';
import { parseIp } from '../../core/ip.ts';
import { explain, type ExplainQuestion } from '../../policy/explain.ts';
import type { IdentityId } from '../../policy/identity.ts';
import { judge, type PortQuery } from '../../policy/judge.ts';
import { preview, type KnownConnection } from '../../policy/preview.ts';
import { lookupIdentity } from '../../policy/simulate.ts';
import { agentLimits } from '../limits.ts';
import { recordsOf } from './endpoint-views.ts';
import type { AgentApiSources } from './sources.ts';

export function explainView(sources: AgentApiSources, question: ExplainQuestion): ExplainAnswer {
  const { cluster, enforcement, audited } = sources;
  const world = {
    pods: cluster.pods.list(),
    namespaces: cluster.namespaces.list(),
    nodes: cluster.nodes.list(),
    policies: cluster.policyIndex,
    ...{ enforcement, audited },
  };
  const answer = explain(world, question);
  const kernel = new KernelJudge(sources, question.port);
  const paths = answer.paths.map((path) => ({
    ...path,
    egress: kernel.beside(path.egress, path.from, path.to),
    ingress: kernel.beside(path.ingress, path.to, path.from),
  }));
  return { node: sources.nodeName, ...answer, paths };
}

/** The same question to the entries in the kernel, where this node enforces the side. */
class KernelJudge {
  readonly #sources: AgentApiSources;
  readonly #port: PortQuery | undefined;
  #ipcache: ReadonlyMap<string, IdentityId> | undefined;

  constructor(sources: AgentApiSources, port: PortQuery | undefined) {
    this.#sources = sources;
    this.#port = port;
  }

  beside(side: DirectionExplanation, subject: Party, peer: Party): DirectionExplanation {
    const ip = parseIp(peer.address);
    if (side.reason === 'self' || subject.kind !== 'pod' || ip === undefined) return side;
    const { kernel, rules, nodeName } = this.#sources;
    const records = recordsOf(this.#sources, subject.namespace ?? '', subject.name ?? '');
    const record = records.find(({ ips }) => ips.includes(subject.address)) ?? records[0];
    const state = kernel.endpoints().find(({ endpointId }) => endpointId === record?.endpointId);
    if (record === undefined || state === undefined) return side;
    this.#ipcache ??= kernel.ipcache() as ReadonlyMap<string, IdentityId>;
    const held = kernel.policyEntries(record.endpointId);
    const entries = held.map((entry) => ({ ...entry, identity: entry.identity as IdentityId }));
    // Without a policy the program drops everything.
    const isolated = state.programmed ? state.isolated : { ingress: true, egress: true };
    const identity = lookupIdentity(this.#ipcache, ip);
    const { verdict, ruleId, allowed } = judge({ isolated, entries }, side.direction, identity, this.#port);
    const agrees = verdict === side.verdict && (verdict !== 'partly' || allowed.toString() === side.allowedPorts);
    return { ...side, kernel: { node: nodeName, verdict, rule: rules.nameOf(ruleId), agrees } };
  }
}

export function previewView(sources: AgentApiSources, request: PreviewRequest): PreviewAnswer {
  const { cluster, enforcement, nodeName } = sources;
  const world = {
    pods: cluster.pods.list(),
    namespaces: cluster.namespaces.list(),
    nodes: cluster.nodes.list(),
    policies: cluster.policies.list(),
    enforcement,
  };
  const known = knownConnections(sources);
  const { connections, ...rest } = preview(world, request, known);
  return {
    node: nodeName,
    ...rest,
    connections: connections.map(({ index, ...change }) => ({
      ...change,
      node: nodeName,
      rule: sources.rules.nameOf(known[index]?.ruleId ?? 0),
    })),
    connectionsExamined: known.length,
  };
}

function knownConnections(sources: AgentApiSources): (KnownConnection & { readonly ruleId: number })[] {
  const pods = new Map(sources.endpoints().map(({ endpointId, pod }) => [endpointId, pod]));
  return sources.kernel.connections(agentLimits.previewConnections).flatMap((connection) => {
    const pod = pods.get(connection.endpointId);
    const direction: PolicyDirection = connection.direction;
    return pod === undefined ? [] : [{ ...connection, direction, pod: { namespace: pod.namespace, name: pod.name } }];
  });
}
