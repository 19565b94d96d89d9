/** `sluice ipam …` as an operator runs it, beside what the API and the interfaces say. */
import assert from 'node:assert/strict';
import type { KubeObject } from '../../src/api/kubernetes.ts';
import { spiderIPPools } from '../../src/api/resources.ts';
import type { CheckReport } from '../../src/cli/render-ipam.ts';
import type { GcReport } from '../../src/cli/ipam-gc.ts';
import type { AddressView, PodAddressesView, PoolView } from '../../src/cli/ipam-views.ts';
import { caseOf, fromPools, ipsOf, runSluice, sluiceJson, type Bed, type CaseSpace } from './bed.ts';

export function ipamCommandCases(bed: () => Bed): void {
  caseOf('commands', 'of addresses: shown, refused, given back, and told when something is wrong', bed, async (c) => {
    const net = c.subnet();
    const spec = {
      subnet: `${net}.0/24`,
      ips: [`${net}.10-${net}.14`],
      excludeIPs: [`${net}.11`],
      gateway: `${net}.1`,
    };
    const pool = await c.poolOf('p', spec);
    const [ip = ''] = ipsOf(await c.pod('web', { annotations: fromPools([pool]), node: 'node1' }));
    assert.equal(ip, `${net}.10`);
    const json = <T>(...args: readonly string[]): Promise<T> => sluiceJson(c.bed, 'ipam', ...args) as Promise<T>;
    await showsPools(c, pool, net, json);
    await showsOwner(c, pool, ip, json);
    await refuses(c, pool, ip);
    await tellsLeak(c, pool, net, json);
    await tellsStray(c, pool, ip, json);
  });
}

type Ask = <T>(...args: readonly string[]) => Promise<T>;

async function showsPools(c: CaseSpace, pool: string, net: string, json: Ask): Promise<void> {
  const own = (await json<PoolView[]>('pools')).find(({ name }) => name === pool) ?? assert.fail('not listed');
  assert.deepEqual([own.version, own.subnet, own.total, own.allocated, own.freeCount], [4, `${net}.0/24`, 4, 1, 3]);
  assert.deepEqual(own.ranges, [`${net}.10`, `${net}.12-${net}.14`]);
  const [{ free }] = (await json<[Pick<PoolView, 'free'>]>('free', pool)) ?? assert.fail();
  assert.deepEqual(free, [`${net}.12-${net}.14`]);
  const { stdout } = await runSluice(c.bed, 'ipam', 'pools');
  assert.match(stdout, new RegExp(`^${pool} +4 +${net}\\.0/24 +1 +3 +0 +4 +no +ready +${net}\\.10, ${net}\\.12-`, 'm'));
  for (const [address, state] of [
    [`${net}.11`, 'excluded'],
    [`${net}.1`, 'gateway'],
    [`${net}.12`, 'free'],
    [`${net}.99`, 'not pooled'],
  ] as const)
    assert.equal((await json<AddressView>('show', address)).state, state, address);
}

async function showsOwner(c: CaseSpace, pool: string, ip: string, json: Ask): Promise<void> {
  const address = await json<AddressView>('show', ip);
  assert.deepEqual([address.state, address.pool, address.record?.pod], ['allocated', pool, `${c.namespace}/web`]);
  assert.deepEqual([address.podPhase, address.podNode, address.endpoint], ['Running', 'node1', `${c.namespace}/web`]);
  assert.deepEqual(
    address.onInterfaces.map(({ node, interface: name, pod }) => [node, name, pod]),
    [['node1', 'eth0', `${c.namespace}/web`]],
  );
  const pod = await json<PodAddressesView>('show', 'web', '-n', c.namespace);
  const row = { interface: 'eth0', address: ip, pool, record: 'yes', endpoint: true, onInterface: true };
  assert.deepEqual(pod.addresses, [row]);
}

/** Each refusal says what is so and what to do, and changes nothing. */
async function refuses(c: CaseSpace, pool: string, ip: string): Promise<void> {
  const why = `pod ${c.namespace}/web \\(Running on node1\\) has it on eth0 \\(delete the pod \\(kubectl delete pod -n`;
  for (const [args, message] of [
    [['release', ip], new RegExp(`release ${ip}: ${why}`)],
    [['release', '192.0.2.7'], /no pool records it for anybody \(sluice ipam show 192\.0\.2\.7 tells/],
    [['release', 'web'], /it is not an IP address/],
    [['free', 'nowhere'], /SpiderIPPool nowhere: there is no such pool \(these exist: .*lab-default-v4/],
    [['show', 'nobody'], /no pod, record or SpiderEndpoint has this name/],
  ] as const) {
    const { code, stderr } = await runSluice(c.bed, 'ipam', ...args);
    assert.equal(code, 1, args.join(' '));
    assert.match(stderr, message);
  }
  assert.equal((await c.records(pool)).size, 1);
}

/** Records of pods that never were: `check` and `gc` tell of them, and `gc` returns them. The controller's own turn comes later. */
async function tellsLeak(c: CaseSpace, pool: string, net: string, json: Ask): Promise<void> {
  const found = await c.readPool(pool);
  const records = JSON.parse(found.status?.allocatedIPs ?? '{}') as object;
  const leak = { pod: `${c.namespace}/never`, podUid: 'no-such-uid' };
  const allocatedIPs = JSON.stringify({ ...records, [`${net}.12`]: leak });
  const status = { ...found.status, allocatedIPs, allocatedIPCount: 2 };
  await c.kube.replaceStatus(spiderIPPools, { ...found, status } as KubeObject);
  const own = (report: GcReport) => report.records.filter((record) => record.pool === pool);
  const dry = own(await json<GcReport>('gc', '--dry-run'));
  assert.deepEqual(
    dry.map(({ address, pod, state, reason }) => [address, pod, state, reason]),
    [[`${net}.12`, leak.pod, 'due', 'the pod is gone']],
  );
  assert.equal((await c.records(pool)).size, 2, 'a dry run changes nothing');
  const checked = await runSluice(c.bed, 'ipam', 'check', '--json');
  assert.equal(checked.code, 1);
  const { findings, nodes, unanswered } = JSON.parse(checked.stdout) as CheckReport;
  assert.deepEqual([nodes.length, unanswered], [2, []]);
  assert.deepEqual(
    findings.filter((finding) => finding.pool === pool).map(({ kind, address }) => [kind, address]),
    [['leak', `${net}.12`]],
  );
  assert.deepEqual(
    own(await json<GcReport>('gc')).map(({ state }) => state),
    ['returned'],
  );
  assert.equal((await c.records(pool)).size, 1);
}

/** By force, the record goes and the pod keeps the address; `check` then calls it a stray. */
async function tellsStray(c: CaseSpace, pool: string, ip: string, json: Ask): Promise<void> {
  const released = await json<{ address: string; pool: string; objection?: string }>('release', ip, '--force');
  assert.deepEqual([released.address, released.pool], [ip, pool]);
  assert.match(released.objection ?? '', /has it on eth0/);
  assert.equal((await c.records(pool)).size, 0);
  assert.deepEqual(await c.addressesOn('web'), [ip]);
  const { code, stdout } = await runSluice(c.bed, 'ipam', 'check');
  assert.equal(code, 1);
  assert.match(
    stdout,
    new RegExp(`^stray +${ip} +${pool} +on eth0 of pod ${c.namespace}/web on node1, and the pool`, 'm'),
  );
}
