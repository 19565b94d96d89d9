/**
 * The agent's API for operators' tools: HTTP over a unix socket that root alone may use. It reads; no request changes
 * anything. docs/reference/agent-api.md lists the paths.
 */
import fastify, { type FastifyInstance, type FastifyReply } from 'fastify';
import { z } from 'zod';
import type {
  ApiError,
  BandwidthAnswer,
  CountersAnswer,
  DropsAnswer,
  EndpointDetail,
  EndpointPolicyInfo,
  NodeInfo,
} from '../../api/agent-api.ts';
import { SluiceError, type ErrorCode } from '../../core/error.ts';
import { reasons } from '../../datapath/abi.ts';
import { parsePortQuery, type PortQuery } from '../../policy/judge.ts';
import { agentLimits } from '../limits.ts';
import { addressesView } from './address-view.ts';
import type { DropFilter } from './drop-log.ts';
import {
  endpointDetails,
  endpointPolicies,
  endpointSummaries,
  packetCounters,
  recordsOf,
  ruleCounters,
} from './endpoint-views.ts';
import { explainView, previewView } from './flow-views.ts';
import { FollowStream } from './follow-stream.ts';
import { bandwidthAnswer } from './bandwidth-views.ts';
import type { AgentApiSources } from './sources.ts';

/** Built without a listener, so that tests can inject requests. */
export function buildAgentApi(sources: AgentApiSources): FastifyInstance {
  const app = fastify({ logger: false, forceCloseConnections: true, bodyLimit: agentLimits.apiRequestBytes });
  app.setErrorHandler((error, _, reply) => sendError(reply, error));
  app.setNotFoundHandler((request, reply) =>
    sendError(reply, failure('not_found', 'find', `${request.method} ${request.url}`, 'there is no such path')),
  );
  app.get('/v1/node', (): NodeInfo => nodeInfo(sources));
  app.get('/v1/addresses', () => addressesView(sources));
  app.get('/v1/counters', (): CountersAnswer => counters(sources));
  endpointRoutes(app, sources);
  bandwidthRoutes(app, sources);
  policyRoutes(app, sources);
  dropRoutes(app, sources);
  return app;
}

const podPath = z.object({ namespace: z.string(), pod: z.string() });

function endpointRoutes(app: FastifyInstance, sources: AgentApiSources): void {
  app.get('/v1/endpoints', () => endpointSummaries(sources));
  app.get('/v1/endpoints/:namespace/:pod', ({ params }): EndpointDetail[] => {
    const { namespace, pod } = podPath.parse(params);
    return nonEmpty(sources, endpointDetails(sources, namespace, pod), `${namespace}/${pod}`);
  });
  app.get('/v1/endpoints/:namespace/:pod/policy', ({ params }): EndpointPolicyInfo[] => {
    const { namespace, pod } = podPath.parse(params);
    return nonEmpty(sources, endpointPolicies(sources, namespace, pod), `${namespace}/${pod}`);
  });
}

const bandwidthQuery = z.strictObject({
  pod: z
    .string()
    .regex(/^[^/]+\/[^/]+$/, 'write NAMESPACE/POD')
    .optional(),
  sample: z.coerce.number().int().min(0).max(agentLimits.bandwidthSampleMs).default(0),
});

function bandwidthRoutes(app: FastifyInstance, sources: AgentApiSources): void {
  app.get('/v1/bandwidth', ({ query }): Promise<BandwidthAnswer> => {
    const { pod, sample } = bandwidthQuery.parse(query);
    const [namespace = '', name = ''] = pod?.split('/') ?? [];
    const records = () => (pod === undefined ? sources.endpoints() : recordsOf(sources, namespace, name));
    if (pod !== undefined) nonEmpty(sources, records(), pod);
    return bandwidthAnswer({ nodeName: sources.nodeName, view: sources.bandwidth, records, sampleMs: sample });
  });
}

const explainQuery = z.strictObject({
  from: z.string().min(1),
  to: z.string().min(1),
  port: z.string().transform(portOf).optional(),
});

const objectName = z.strictObject({ namespace: z.string().min(1), name: z.string().min(1) });
/** Policies are parsed leniently: what is wrong with one is told as a diagnostic. */
const previewBody = z.strictObject({
  apply: z.array(z.looseObject({ metadata: z.looseObject({ name: z.string().min(1) }) })),
  remove: z.array(objectName),
});

function policyRoutes(app: FastifyInstance, sources: AgentApiSources): void {
  app.get('/v1/policy/explain', ({ query }) => {
    const question = explainQuery.parse(query);
    mustBeSynced(sources);
    return explainView(sources, question);
  });
  app.post('/v1/policy/preview', ({ body }) => {
    const request = previewBody.parse(body);
    mustBeSynced(sources);
    return previewView(sources, request);
  });
}

const kind = z.enum(['drop', 'audit', 'allow']);
const filterShape = {
  pod: z
    .string()
    .regex(/^[^/]+\/[^/]+$/, 'write NAMESPACE/POD')
    .optional(),
  reason: z.enum(reasons).optional(),
  /** Repeated for several. */
  kind: z.union([kind.transform((one) => [one]), z.array(kind)]).default(['drop', 'audit']),
};
const dropsQuery = z.strictObject({ ...filterShape, limit: z.coerce.number().int().min(0).optional() });
const followQuery = z.strictObject(filterShape);

function dropRoutes(app: FastifyInstance, sources: AgentApiSources): void {
  const { drops, nodeName } = sources;
  app.get('/v1/drops', ({ query }): DropsAnswer => {
    const { limit = agentLimits.dropsKept, ...filter } = dropsQuery.parse(query);
    return { node: nodeName, events: drops.snapshot(filterOf(filter), limit), lost: drops.lost };
  });
  app.get('/v1/drops/follow', ({ query }, reply) => {
    const filter = filterOf(followQuery.parse(query));
    const stream = new FollowStream((onEvent) => drops.follow(filter, onEvent));
    return reply.type('application/x-ndjson').send(stream);
  });
}

function filterOf({ kind: kinds, pod, reason }: z.infer<typeof followQuery>): DropFilter {
  return { kinds, pod, reason };
}

function nodeInfo({ nodeName, enforcement, cluster, problems }: AgentApiSources): NodeInfo {
  return { node: nodeName, policyEnforcement: enforcement, synced: cluster.synced, problems: problems() };
}

function counters(sources: AgentApiSources): CountersAnswer {
  const [packets, rules] = [packetCounters(sources), ruleCounters(sources)];
  const pods = new Map(sources.endpoints().map(({ endpointId, pod }) => [endpointId, pod]));
  const ids = [...new Set([...packets.keys(), ...rules.keys()])].sort((a, b) => a - b);
  return {
    node: sources.nodeName,
    endpoints: ids.map((endpointId) => {
      const pod = pods.get(endpointId);
      return {
        endpointId,
        ...(pod && { pod: { namespace: pod.namespace, name: pod.name } }),
        counters: packets.get(endpointId) ?? [],
        rules: rules.get(endpointId) ?? [],
      };
    }),
    lostEvents: sources.drops.lost,
    maps: sources.kernel.mapUsage().map(({ map, entries, maxEntries }) => ({ map, entries, maxEntries })),
  };
}

function nonEmpty<T>({ nodeName }: AgentApiSources, found: readonly T[], pod: string): T[] {
  if (found.length > 0) return [...found];
  throw failure('not_found', 'find', `pod ${pod}`, `it has no endpoint on node ${nodeName}`, 'sluice endpoint list');
}

function mustBeSynced({ cluster, nodeName }: AgentApiSources): void {
  if (cluster.synced) return;
  const what = 'it has not read the whole cluster yet';
  throw failure(
    'agent_unavailable',
    'ask',
    `the agent of node ${nodeName}`,
    what,
    'try again; /readyz says what is missing',
  );
}

function portOf(text: string): PortQuery {
  const port = parsePortQuery(text);
  if (port !== undefined) return port;
  throw failure('invalid_argument', 'read', `port ${text}`, 'it is no port', 'write 80/tcp, 53/udp, 9003/sctp or icmp');
}

const statuses: Partial<Record<ErrorCode, number>> = {
  invalid_argument: 400,
  not_found: 404,
  limit_exceeded: 429,
  agent_unavailable: 503,
};

function sendError(reply: FastifyReply, error: unknown): FastifyReply {
  if (error instanceof SluiceError) {
    const { code, message, remedy } = error;
    return reply.code(statuses[code] ?? 500).send({ code, message, ...(remedy && { remedy }) } satisfies ApiError);
  }
  const message =
    error instanceof z.ZodError ? z.prettifyError(error) : error instanceof Error ? error.message : 'failed';
  const given = (error as { readonly statusCode?: unknown }).statusCode;
  const status = error instanceof z.ZodError ? 400 : typeof given === 'number' ? given : 500;
  const code: ErrorCode = status < 500 ? 'invalid_argument' : 'internal';
  return reply.code(status).send({ code, message } satisfies ApiError);
}

function failure(code: ErrorCode, operation: string, object: string, what: string, remedy?: string): SluiceError {
  return new SluiceError({ code, operation, object, what, remedy });
}
