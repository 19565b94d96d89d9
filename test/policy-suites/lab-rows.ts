/**
 * Rows of the checklist that the suites' nine pods cannot show: nodes, host-network pods, the outside, names that mean
 * other numbers, ICMP. Registered in the suites' lab, so that one lab serves both.
 */

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { after, before, describe, it } from 'node:test';
import { promisify } from 'node:util';
import { PodCgroups } from '../../src/agent/pod-cgroup.ts';
import type { KubeObject, NetworkPolicySpec, Pod } from '../../src/api/kubernetes.ts';
import { events, networkPolicies, pods, spiderIPPools } from '../../src/api/resources.ts';
import { systemClock } from '../../src/core/clock.ts';
import { silentLogger } from '../../src/core/log.ts';
import { removeSocketGuard } from '../../src/datapath/socket-guard.ts';
import { waitFor } from '../../src/lab/lifecycle/wait.ts';
import { PortServer } from '../../src/lab/node/port-server.ts';
import { nodeAddresses, underlayV4, underlayV6 } from '../../src/lab/underlay/underlay.ts';
import type { PodName } from './case.ts';
import type { LabCluster } from './lab-cluster.ts';
import { Prober, type ProbeRequest } from './prober.ts';
import { families, splitName } from './scene.ts';

const run = promisify(execFile);
const patience = { timeoutMs: 60_000 };

/** Who opens a connection: a pod, one of the nodes, or a machine on the same network that is neither. */
type From = PodName | 'node1' | 'node2' | 'outside';

interface Flow {
  readonly from: From;
  /** A pod, or addresses by family with what answers there. */
  readonly to: PodName | { readonly addresses: Readonly<Record<4 | 6, string>>; readonly answers: string };
  readonly port: number;
  readonly reaches: boolean;
}

const node = (index: number): Readonly<Record<4 | 6, string>> => {
  const { v4, v6 } = nodeAddresses(index);
  return { 4: v4, 6: v6 };
};
const outside = { addresses: { 4: underlayV4.gateway, 6: underlayV6.gateway }, answers: 'outside' };
const poolOf = ({ subnet, gateway }: typeof underlayV4 | typeof underlayV6) => ({ subnet, gateway });
const friendLabel = { metadata: { labels: { role: 'friend' } } };
const timeoutMs = { reached: 3_000, denied: 400 };

export function registerLabRows(lab: LabCluster): void {
  describe('rows of the checklist, in the lab', () => {
    const probers = new Map<From, Prober>();
    let outsideServer: PortServer | undefined;

    before(() => {
      const { switchNetns, nodeNetns } = lab.places();
      probers.set('outside', new Prober(switchNetns));
      probers.set('node1', new Prober(nodeNetns('node1')));
      probers.set('node2', new Prober(nodeNetns('node2')));
      const ports = [80, 81].flatMap((containerPort) =>
        (['TCP', 'UDP'] as const).map((protocol) => ({ containerPort, protocol })),
      );
      outsideServer = new PortServer({ netns: switchNetns, podName: 'outside', ports, log: silentLogger });
    });
    after(() => {
      for (const prober of probers.values()) prober[Symbol.dispose]();
      outsideServer?.close();
    });

    const outcomeOf = async (flow: Flow, family: 4 | 6, protocol: 'TCP' | 'UDP'): Promise<string> => {
      const { to } = flow;
      const address = typeof to === 'string' ? lab.addressing(to)[family] : to.addresses[family];
      const answers = typeof to === 'string' ? splitName(to).name : to.answers;
      const probe: ProbeRequest = {
        ...{ address, port: flow.port, protocol, expect: `${answers}\n` },
        timeoutMs: flow.reaches ? timeoutMs.reached : timeoutMs.denied,
      };
      const prober = probers.get(flow.from) ?? lab.proberOf(flow.from as PodName);
      return (await prober.probe([probe]))[0] ?? 'no outcome';
    };

    /** Each flow over both families and both protocols; all must be right within five seconds. */
    const check = async (flows: readonly Flow[]): Promise<void> => {
      const start = performance.now();
      for (;;) {
        const wrong = (
          await Promise.all(
            flows.flatMap((flow) =>
              families.flatMap((family) =>
                (['TCP', 'UDP'] as const).map(async (protocol) => {
                  const outcome = await outcomeOf(flow, family, protocol);
                  const to = typeof flow.to === 'string' ? flow.to : flow.to.addresses[family];
                  const expected = flow.reaches ? 'reached' : 'timeout';
                  const text = `${flow.from} to ${to} ${protocol} ${flow.port} IPv${family}: ${outcome}, not ${expected}`;
                  return outcome === expected ? [] : [text];
                }),
              ),
            ),
          )
        ).flat();
        if (wrong.length === 0) return;
        assert.ok(performance.now() - start < 5_000, wrong.join('\n'));
      }
    };

    const withPolicy = async (
      namespace: string,
      spec: NetworkPolicySpec,
      work: () => Promise<void>,
      name = 'row',
    ): Promise<void> => {
      await lab.client.create(networkPolicies, { metadata: { namespace, name }, spec });
      try {
        await work();
      } finally {
        await lab.client.delete(networkPolicies, { namespace, name });
      }
    };

    const denyAll: NetworkPolicySpec = { podSelector: {}, policyTypes: ['Ingress', 'Egress'] };
    const everyPod = [{ podSelector: {}, namespaceSelector: {} }];
    const onNode1: PodName = 'x/a';
    const onNode2: PodName = 'x/b';

    it('rows 12 and 13: the node reaches its own pods whatever the policy; other nodes and the way back do not pass', async () => {
      await withPolicy('x', denyAll, () =>
        check([
          { from: 'node1', to: onNode1, port: 80, reaches: true },
          { from: 'node2', to: onNode2, port: 80, reaches: true },
          { from: 'node2', to: onNode1, port: 80, reaches: false },
          { from: 'node1', to: onNode2, port: 80, reaches: false },
          { from: 'outside', to: onNode1, port: 80, reaches: false },
          { from: onNode1, to: outside, port: 80, reaches: false },
        ]),
      );
      await check([
        { from: 'node2', to: onNode1, port: 80, reaches: true },
        { from: 'outside', to: onNode1, port: 80, reaches: true },
        { from: onNode1, to: outside, port: 80, reaches: true },
      ]);
    });

    it('row 13: what the node forwards over veth0 is judged as what it is, not as the node', async () => {
      const { switchNetns } = lab.places();
      const route = (verb: string): Promise<unknown> =>
        Promise.all(
          families.map((family) => {
            const { [family]: address } = lab.addressing(onNode1);
            const prefix = family === 4 ? `${address}/32` : `${address}/128`;
            const args = [`-${family}`, 'route', verb, prefix, 'via', node(0)[family]];
            return run('nsenter', [`--net=${switchNetns}`, 'ip', ...args]);
          }),
        );
      const received = async (): Promise<number> => {
        const args = [`--net=${lab.netnsOf(onNode1)}`, 'ip', '-j', '-s', 'link', 'show', 'dev', 'veth0'];
        const [link] = JSON.parse((await run('nsenter', args)).stdout) as [{ stats64: { rx: { packets: number } } }];
        return link.stats64.rx.packets;
      };
      await route('add');
      try {
        const before = await received();
        await check([{ from: 'outside', to: onNode1, port: 80, reaches: true }]);
        assert.ok((await received()) >= before + 8, 'the packets did not come over veth0');
        await withPolicy('x', denyAll, () =>
          check([
            { from: 'outside', to: onNode1, port: 80, reaches: false },
            { from: 'node1', to: onNode1, port: 80, reaches: true },
          ]),
        );
      } finally {
        await route('del');
      }
    });

    it('row 4: every pod of every namespace is no node and nobody outside', async () => {
      const spec = {
        podSelector: {},
        policyTypes: ['Ingress', 'Egress'],
        ingress: [{ from: everyPod }],
        egress: [{ to: everyPod }],
      };
      await withPolicy('x', spec, () =>
        check([
          { from: 'y/a', to: onNode1, port: 80, reaches: true },
          { from: onNode1, to: 'z/b', port: 80, reaches: true },
          { from: 'outside', to: onNode1, port: 80, reaches: false },
          { from: 'node2', to: onNode1, port: 80, reaches: false },
          { from: onNode1, to: outside, port: 80, reaches: false },
        ]),
      );
    });

    it('rows 9 and 23: an ipBlock lets in who is outside, less its excepts, with the source as it arrives', async () => {
      const blocks = (except: boolean) => [
        { ipBlock: { cidr: underlayV4.subnet, ...(except && { except: [`${underlayV4.gateway}/32`] }) } },
        { ipBlock: { cidr: underlayV6.subnet, ...(except && { except: [`${underlayV6.gateway}/128`] }) } },
      ];
      const spec = (except: boolean): NetworkPolicySpec => ({
        podSelector: { matchLabels: { pod: 'a' } },
        policyTypes: ['Ingress', 'Egress'],
        ingress: [{ from: blocks(except), ports: [{ port: 80 }, { port: 80, protocol: 'UDP' }] }],
        egress: [{ to: blocks(except) }],
      });
      for (const except of [false, true]) {
        await withPolicy('x', spec(except), () =>
          check([
            { from: 'outside', to: 'x/a', port: 80, reaches: !except },
            { from: 'outside', to: 'x/a', port: 81, reaches: false },
            { from: 'x/a', to: outside, port: 81, reaches: !except },
            { from: 'y/a', to: 'x/a', port: 80, reaches: true },
            { from: 'node2', to: 'x/a', port: 80, reaches: true },
          ]),
        );
      }
    });

    it('row 6: one port name means another number on each destination', async () => {
      const named = (port: number) =>
        (['TCP', 'UDP'] as const).map((protocol) => ({
          name: `web-${protocol.toLowerCase()}`,
          containerPort: port,
          protocol,
        }));
      const plain = (port: number) => (['TCP', 'UDP'] as const).map((protocol) => ({ containerPort: port, protocol }));
      try {
        await lab.createPod('x/n1', { pod: 'n1' }, { ports: [...named(80), ...plain(81)] });
        await lab.createPod('x/n2', { pod: 'n2' }, { ports: [...named(81), ...plain(80)] });
        const ports = [{ port: 'web-tcp' }, { port: 'web-udp', protocol: 'UDP' }];
        const flows = (from: PodName): Flow[] => [
          { from, to: 'x/n1', port: 80, reaches: true },
          { from, to: 'x/n1', port: 81, reaches: false },
          { from, to: 'x/n2', port: 81, reaches: true },
          { from, to: 'x/n2', port: 80, reaches: false },
        ];
        await withPolicy(
          'y',
          { podSelector: { matchLabels: { pod: 'a' } }, policyTypes: ['Egress'], egress: [{ to: everyPod, ports }] },
          () => check(flows('y/a')),
        );
        await withPolicy('x', { podSelector: {}, ingress: [{ ports }] }, () => check(flows('y/a')));
      } finally {
        await Promise.all([lab.deletePod('x/n1'), lab.deletePod('x/n2')]);
      }
    });

    it('row 12: a host-network pod is never selected, and is its node to everyone else', async () => {
      const ports = (['TCP', 'UDP'] as const).map((protocol) => ({ containerPort: 8099, hostPort: 8099, protocol }));
      try {
        await lab.createHostNetworkPod('x/host', { pod: 'a', ns: 'x' }, 'node2', ports);
        const host = { addresses: node(1), answers: 'host' };
        await check([{ from: 'y/a', to: host, port: 8099, reaches: true }]);
        // Its own namespace denies everything; it is not isolated by that.
        await withPolicy('x', denyAll, () => check([{ from: 'y/a', to: host, port: 8099, reaches: true }]));
        // Pods that let in namespace x do not let in the node that this pod of x is.
        const fromX: NetworkPolicySpec = {
          podSelector: {},
          ingress: [{ from: [{ namespaceSelector: { matchLabels: { ns: 'x' } } }] }],
        };
        await withPolicy('y', fromX, () =>
          check([
            { from: 'x/a', to: 'y/b', port: 80, reaches: true },
            { from: 'node2', to: 'y/b', port: 80, reaches: false },
          ]),
        );
        // And nobody reaches it by a selector.
        const toX: NetworkPolicySpec = {
          podSelector: {},
          policyTypes: ['Egress'],
          egress: [{ to: [{ namespaceSelector: { matchLabels: { ns: 'x' } } }] }],
        };
        await withPolicy('y', toX, () =>
          check([
            { from: 'y/a', to: 'x/a', port: 80, reaches: true },
            { from: 'y/a', to: host, port: 8099, reaches: false },
          ]),
        );
      } finally {
        await lab.client.delete(pods, { namespace: 'x', name: 'host' }, { gracePeriodSeconds: 0 });
      }
    });

    it('row 14: a pod reaches itself although nothing is allowed', async () => {
      await withPolicy('x', denyAll, () =>
        check([
          { from: 'x/a', to: 'x/a', port: 80, reaches: true },
          { from: 'x/b', to: 'x/b', port: 81, reaches: true },
          { from: 'x/a', to: 'x/b', port: 81, reaches: false },
        ]),
      );
    });

    it('row 15: who gets the address of a pod that has ended is not that pod', async () => {
      const friends: NetworkPolicySpec = {
        podSelector: {},
        ingress: [{ from: [{ podSelector: { matchLabels: { role: 'friend' } } }] }],
      };
      const pools = [
        { metadata: { name: 'row-15-v4' }, spec: { ...poolOf(underlayV4), ipVersion: 4, ips: ['172.51.200.1'] } },
        { metadata: { name: 'row-15-v6' }, spec: { ...poolOf(underlayV6), ipVersion: 6, ips: ['fd00:51::c801'] } },
      ];
      const annotations = { 'ipam.spidernet.io/ippool': '{"ipv4":["row-15-v4"],"ipv6":["row-15-v6"]}' };
      for (const pool of pools) await lab.client.create(spiderIPPools, pool);
      try {
        await lab.runToEnd('x/done', { role: 'friend' }, annotations);
        await lab.createPod('x/stranger', { pod: 'stranger' }, { annotations });
        const old = await lab.client.get<Pod>(pods, { namespace: 'x', name: 'done' });
        assert.equal(old.status?.podIP, lab.addressing('x/stranger')[4], 'the pod that ended still shows the address');
        await withPolicy('x', friends, () => check([{ from: 'x/stranger', to: 'x/a', port: 80, reaches: false }]));
        await lab.client.patch(pods, { namespace: 'x', name: 'stranger' }, { type: 'merge', body: friendLabel });
        await withPolicy('x', friends, () => check([{ from: 'x/stranger', to: 'x/a', port: 80, reaches: true }]));
      } finally {
        await lab.client.delete(pods, { namespace: 'x', name: 'done' }, { gracePeriodSeconds: 0 });
        await lab.deletePod('x/stranger');
        for (const { metadata } of pools) await lab.client.delete(spiderIPPools, metadata);
      }
    });

    it('row 16: sockets that would send past the hooks are refused in every pod', async () => {
      const cgroups = new PodCgroups(systemClock);
      for (const name of [onNode1, onNode2]) {
        const pod = await lab.client.get<Pod>(pods, splitName(name));
        const dir = cgroups.find(pod.metadata?.uid ?? '') ?? assert.fail(`${name} has no cgroup`);
        assert.ok(removeSocketGuard(dir, { dryRun: true }), name);
      }
    });

    it('row 21: ping is denied under isolation, allowed by a rule without ports, and not by one with', async () => {
      const pings = async (from: PodName, to: PodName, expected: boolean): Promise<void> => {
        const netns = lab.netnsOf(from);
        const ping = (family: 4 | 6): Promise<boolean> =>
          run('nsenter', [`--net=${netns}`, 'ping', '-n', '-q', '-c', '1', '-W', '1', lab.addressing(to)[family]]).then(
            () => true,
            () => false,
          );
        await waitFor(
          `ping from ${from} to ${to} to be ${expected ? 'answered' : 'dropped'}`,
          async () => (await Promise.all(families.map(ping))).every((answered) => answered === expected),
          { timeoutMs: 8_000 },
        );
      };
      await pings('y/a', 'x/a', true);
      await withPolicy('x', { podSelector: {} }, () => pings('y/a', 'x/a', false));
      await withPolicy('x', { podSelector: {}, ingress: [{ from: everyPod }] }, () => pings('y/a', 'x/a', true));
      const onlyTcp: NetworkPolicySpec = {
        podSelector: {},
        ingress: [{ from: everyPod, ports: [{ protocol: 'TCP' }] }],
      };
      await withPolicy('x', onlyTcp, () => pings('y/a', 'x/a', false));
    });

    it('a policy that the API takes but that cannot work gets an event', async () => {
      const spec: NetworkPolicySpec = { podSelector: {}, ingress: [{ ports: [{ port: 'no-such-port' }] }] };
      await withPolicy(
        'x',
        spec,
        () =>
          waitFor(
            'the event on the policy',
            async () => {
              const { items } = await lab.client.list<KubeObject & { message?: string }>(events, {
                namespace: 'x',
                fieldSelector: 'involvedObject.kind=NetworkPolicy,involvedObject.name=unresolved',
              });
              return items.some(({ message = '' }) => message.includes('"no-such-port"'));
            },
            patience,
          ),
        'unresolved',
      );
    });
  });
}
