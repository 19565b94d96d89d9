/** Changes of traffic control in other namespaces are told at once, by namespace. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import { createNamedNetns, Netns, removeNamedNetns } from '../netns.ts';
import { TcMonitor } from './tc-monitor.ts';

describe('tc monitor', { skip: process.getuid?.() === 0 ? false : 'needs root' }, () => {
  const [one, other] = ['one', 'other'].map((name) => `/run/netns/sluice-${randomBytes(4).toString('hex')}-${name}`);
  assert.ok(one !== undefined && other !== undefined);
  before(() => [one, other].forEach(createNamedNetns));
  after(() => [one, other].forEach(removeNamedNetns));

  it('tells in which of the watched namespaces something changed, and nothing twice', async () => {
    using monitor = TcMonitor.open();
    const [first, second] = [one, other].map((path) => {
      using netns = Netns.openPath(path);
      return monitor.watch(netns);
    });
    assert.ok(first !== undefined && second !== undefined && first !== second);
    const tc = (where: string, ...args: string[]): unknown =>
      execFileSync('nsenter', [`--net=${where}`, 'tc', ...args], { stdio: 'pipe' });
    const told = async (...expected: number[]): Promise<void> => {
      await monitor.wait(5_000);
      const changed = [...(monitor.changed() ?? [])];
      // Other tests of this machine may be numbered in the same namespace.
      assert.deepEqual(changed.filter((number) => number === first || number === second).sort(), expected.sort());
    };
    tc(one, 'qdisc', 'add', 'dev', 'lo', 'clsact');
    await told(first);
    const filter = ['dev', 'lo', 'ingress', 'pref', '7'];
    tc(other, 'qdisc', 'add', 'dev', 'lo', 'clsact');
    tc(other, 'filter', 'add', ...filter, 'protocol', 'ip', 'u32', 'match', 'u32', '0', '0');
    await told(second);
    tc(other, 'filter', 'del', ...filter);
    tc(one, 'qdisc', 'del', 'dev', 'lo', 'clsact');
    await told(first, second);
    assert.deepEqual(
      [...(monitor.changed() ?? [])].filter((number) => number === first),
      [],
    );
    const startMs = performance.now();
    monitor.wake();
    await monitor.wait(60_000);
    assert.ok(performance.now() - startMs < 30_000, 'a waiter is woken');
  });
});
