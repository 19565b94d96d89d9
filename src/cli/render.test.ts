import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { DirectionExplanation, ExplainAnswer, FlowEvent, PreviewAnswer } from '../api/agent-api.ts';
import { findingKinds } from '../ipam/audit.ts';
import { packageRoot } from '../kernel/package-root.ts';
import { lintCodes, lintPolicies } from '../policy/lint.ts';
import { parseManifests } from './manifest-files.ts';
import { mergeExplanations, mergePreviews } from './policy.ts';
import { renderEndpoints, renderEvent, renderExplain, renderStatus, table } from './render.ts';
import { renderGc } from './render-ipam.ts';
import { renderCheck, renderPreview } from './render-preview.ts';

const event: FlowEvent = {
  ...{ time: '2026-01-01T00:00:00.000Z', node: 'node1', kind: 'drop', reason: 'policy', direction: 'ingress' },
  ...{ rule: { kind: 'none' }, pod: { namespace: 'demo', name: 'web' }, protocol: 'tcp', length: 60, identity: 300 },
  source: { kind: 'pod', address: '10.0.0.2', namespace: 'demo', name: 'other' },
  destination: { kind: 'pod', address: 'fd00::1', namespace: 'demo', name: 'web' },
  ...{ sourcePort: 4000, destinationPort: 80 },
};

const side = (direction: 'ingress' | 'egress', change: Partial<DirectionExplanation> = {}): DirectionExplanation => ({
  ...{ direction, verdict: 'allow', reason: 'not_isolated', rule: { kind: 'none' }, audit: false },
  ...{ isolatedBy: [], rules: [], summary: `says ${direction}` },
  ...change,
});
const answer = (ingress: Partial<DirectionExplanation> = {}, node = 'node1'): ExplainAnswer => {
  const [from, to] = ['10.0.0.1', '10.0.0.2'].map((address) => ({ kind: 'world' as const, address }));
  assert.ok(from !== undefined && to !== undefined);
  const path = { from, to, verdict: 'deny' as const, egress: side('egress'), ingress: side('ingress', ingress) };
  return { node, from: 'a', to: 'b', port: '80/tcp', verdict: 'deny', paths: [path] };
};

describe('rendering', () => {
  it('tells what garbage collection returned, and what waits until when', () => {
    const base = { pool: 'p', pod: 'demo/a' };
    const records = [
      { ...base, address: '10.0.0.1', state: 'returned', reason: 'the pod is gone' },
      {
        ...base,
        address: '10.0.0.2',
        state: 'waiting',
        reason: 'the pod has ended',
        until: '2026-01-01T00:00:30.000Z',
      },
    ] as const;
    const text = renderGc({ dryRun: false, records });
    assert.match(text, /^returned +10\.0\.0\.1 +p +demo\/a +the pod is gone$/m);
    assert.match(text, /^waiting until 2026-01-01T00:00:30\.000Z +10\.0\.0\.2 /m);
    assert.match(text, /1 addresses given back, 1 wait for their time$/);
    assert.match(renderGc({ dryRun: true, records: [] }), /^0 addresses would be given back, 0 wait/);
  });

  it('tells the state of each node, and its problems', () => {
    const node = { node: 'node1', policyEnforcement: 'default' as const, synced: true, problems: [] };
    const text = renderStatus([
      node,
      { ...node, node: 'node2', problems: ['no room (raise it)'] },
      { ...node, node: 'node3', policyEnforcement: 'always', synced: false },
    ]);
    assert.match(text, /^node1 +default +ready$/m);
    assert.match(text, /^node2 +default +has problems$/m);
    assert.match(text, /^node3 +always +waits for the API\n\n! node2: no room \(raise it\)$/m);
    assert.doesNotMatch(renderStatus([node]), /!/);
  });

  it('tells an endpoint that the agent before still enforces from one that is closed, and why', () => {
    const endpoint = {
      ...{ node: 'node1', endpointId: 7, pod: { namespace: 'demo', name: 'web', uid: 'u' }, interface: 'eth0' },
      ...{ addresses: ['10.0.0.1'], programmed: false, policyEnforcement: 'default' as const, audit: false },
      ...{ isolated: { ingress: false, egress: false }, revision: 0, policies: [] },
    };
    assert.match(renderEndpoints([endpoint]), / closed +closed +default +-$/);
    const waits = { ...endpoint, takeover: 'waits for pods' };
    const text = renderEndpoints([waits, { ...waits, endpointId: 8 }]);
    assert.match(text, / taking over +taking over +default +-\n\n! node1: waits for pods$/);
  });

  it('aligns columns by their widest cell', () => {
    assert.equal(
      table(
        ['A', 'B'],
        [
          ['long', '1'],
          ['x', '22'],
        ],
      ),
      'A     B\nlong  1\nx     22',
    );
  });

  it('shows a drop in one line: time, node, reason, pods, ports, rule', () => {
    assert.equal(
      renderEvent(event),
      '2026-01-01T00:00:00.000Z  node1  drop (policy)       ingress of demo/web  ' +
        'demo/other (10.0.0.2:4000) → demo/web ([fd00::1]:80) tcp  no rule',
    );
    const { source: _, destination: __, ...notIp } = event;
    assert.match(renderEvent({ ...notIp, protocol: 'not IP' }), /60 bytes, not IP/);
  });

  it('lists what every rule lacks, and a kernel that says otherwise', () => {
    const rules = [
      { namespace: 'demo', policy: 'p', index: 2, matches: false, ports: '80/tcp', reasons: ['from[0]: no'] },
    ];
    const kernel = { node: 'node2', verdict: 'allow' as const, rule: { kind: 'host' as const }, agrees: false };
    const text = renderExplain(answer({ verdict: 'deny', rules, kernel }));
    assert.match(text, /^a → b 80\/tcp: deny$/m);
    assert.match(text, /demo\/p ingress\[2\]: from\[0\]: no/);
    assert.match(text, /! the kernel of node2 says otherwise: allow, node to its own pod/);
  });

  it('takes each side’s kernel from the node that has it, and connections from all nodes', () => {
    const kernel = { node: 'node2', verdict: 'deny' as const, rule: { kind: 'none' as const }, agrees: true };
    assert.equal(mergeExplanations([answer(), answer({ kernel }, 'node2')]).paths[0]?.ingress.kernel?.node, 'node2');
    const preview = (node: string): PreviewAnswer => ({
      ...{ node, policies: [], diagnostics: [], isolation: [], flows: [], flowsOmitted: 3, connections: [] },
      connectionsExamined: 5,
    });
    const merged = mergePreviews([preview('a'), preview('b')]);
    assert.equal(merged.connectionsExamined, 10);
    const text = renderPreview({
      ...merged,
      flows: [
        {
          change: 'deny',
          from: { kind: 'pods', pods: ['demo/a'] },
          to: { kind: 'outside', except: ['10.0.0.0/8'] },
          ports: '80/tcp',
        },
      ],
    });
    assert.match(text, /deny {3}demo\/a → outside the cluster except 10\.0\.0\.0\/8: 80\/tcp\n {2}… and 3 more/);
    assert.match(text, /of 10 known connections of a, b\): none/);
    assert.match(text, /Nothing was applied\.$/);
  });

  it('reads several documents and lists with their lines, and tells what is none', () => {
    const text =
      'kind: Pod\nmetadata: {name: a}\n---\n# c\nkind: List\nitems: [{kind: Pod}, {kind: Namespace}]\n---\n- 1\n---\nkind: [\n';
    const { objects, faults } = parseManifests('f.yaml', text);
    assert.deepEqual(
      objects.map(({ line, object }) => [line, object.kind]),
      [
        [1, 'Pod'],
        [5, 'Pod'],
        [5, 'Namespace'],
      ],
    );
    assert.deepEqual(
      faults.map(({ line }) => line),
      [8, 11],
    );
    assert.match(
      renderCheck(lintPolicies(objects), faults),
      /f\.yaml:8: error: the document has no "kind"[^]*2 errors/,
    );
    assert.deepEqual(parseManifests('f.yaml', ''), { objects: [], faults: [] });
  });

  it('the reference lists the checks and the findings as the code has them', () => {
    const page = readFileSync(join(packageRoot(), 'docs/reference/cli.md'), 'utf8');
    const rowsOf = (heading: string): (string | undefined)[][] => {
      const section = page.split(/^## /m).find((each) => each.startsWith(heading)) ?? '';
      return [...section.matchAll(/^\| `(\w+)` \| (.+) \|$/gm)].map(([, code, text]) => [code, text]);
    };
    assert.deepEqual(rowsOf('policy check'), Object.entries(lintCodes));
    assert.deepEqual(rowsOf('ipam'), Object.entries(findingKinds));
  });
});
