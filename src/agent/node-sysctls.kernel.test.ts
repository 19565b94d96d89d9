/** In namespaces of their own: the machine's own sysctls are never written. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { silentLogger, type Logger } from '../core/log.ts';
import { randomSuffix, TestBpffs } from '../datapath/test-bed.ts';
import { RtNetlink } from '../kernel/netlink/rtnetlink.ts';
import { createNamedNetns, removeNamedNetns } from '../kernel/netns.ts';
import { packageRoot } from '../kernel/package-root.ts';
import { readSysctl, writeSysctl } from '../kernel/sysctl.ts';
import { sysctlsOf, tuneNode } from './node-sysctls.ts';

/** gc_thresh3 is the initial namespace's alone, and therefore not here. */
const wanted = {
  'net.ipv4.conf.all.arp_notify': '1',
  'net.ipv4.conf.all.forwarding': '1',
  'net.ipv6.conf.all.forwarding': '1',
  'net.ipv4.conf.all.rp_filter': '0',
};
const others = {
  'net.ipv4.conf.all.arp_notify': '0',
  'net.ipv4.conf.all.forwarding': '0',
  'net.ipv6.conf.all.forwarding': '0',
  'net.ipv4.conf.all.rp_filter': '2',
};

describe('sysctls of a node', () => {
  let netns: string;

  beforeEach(() => {
    netns = `/run/netns/sluice-sysctl-${randomSuffix()}`;
    createNamedNetns(netns);
    using rt = RtNetlink.open(netns);
    rt.setLink(rt.mustLink('lo').ifindex, { up: true });
    for (const [key, value] of Object.entries(others)) writeSysctl(netns, key, value);
  });
  afterEach(() => removeNamedNetns(netns));

  const present = (): Record<string, string | undefined> =>
    Object.fromEntries(Object.keys(wanted).map((key) => [key, readSysctl(netns, key)]));

  it('are set in its namespace, and each change is logged with the value before', () => {
    const { log, lines } = capturedLog();
    tuneNode(sysctlsOf(netns), [4, 6], log);
    assert.deepEqual(present(), wanted);
    assert.ok(
      lines.some((line) => line.includes('rp_filter is 0 now, was 2')),
      lines.join('\n'),
    );
    assert.ok(
      lines.some((line) => line.includes('no net.ipv4.neigh.default.gc_thresh3 here')),
      lines.join('\n'),
    );
    const again = capturedLog();
    tuneNode(sysctlsOf(netns), [4, 6], again.log);
    assert.ok(!again.lines.some((line) => line.includes('now, was')), again.lines.join('\n'));
  });

  for (const [conf, expected] of [
    ['tuneSysctlConfig: true\n', wanted],
    ['enableIPv4: true\n', others],
  ] as const) {
    it(`an agent with ${conf.trim()} leaves its node with the ${expected === wanted ? 'tuned' : 'same'} values`, async () => {
      using agent = new AgentInNetns(netns, conf);
      await agent.started();
      assert.deepEqual(present(), expected);
      await agent.stop();
    });
  }
});

function capturedLog(): { readonly log: Logger; readonly lines: readonly string[] } {
  const lines: string[] = [];
  return { log: { ...silentLogger, info: (_: object, message: string) => lines.push(message) }, lines };
}

/** The command, in the namespace; it does not need its API server to start. */
class AgentInNetns implements Disposable {
  readonly #dir = mkdtempSync(join(tmpdir(), 'sluice-sysctl-'));
  readonly #bpffs = new TestBpffs();
  readonly #child;
  readonly #lines: string[] = [];

  constructor(netns: string, conf: string) {
    const file = (name: string, text: string): string => {
      const path = join(this.#dir, name);
      writeFileSync(path, text);
      return path;
    };
    const kubeConfig = {
      clusters: [{ name: 'c', cluster: { server: 'http://127.0.0.1:1' } }],
      contexts: [{ name: 'c', context: { cluster: 'c', user: 'u' } }],
      users: [{ name: 'u', user: {} }],
      'current-context': 'c',
    };
    const args = [
      ...['--import', 'tsx', 'src/cli/main.ts', 'agent', '--node-name', 'sysctl'],
      ...['--kubeconfig', file('kubeconfig', JSON.stringify(kubeConfig)), '--config', file('conf.yml', conf)],
      ...['--bpffs', join(this.#bpffs.path, 'sluice'), '--state-dir', join(this.#dir, 'state')],
      ...['--cni-socket', join(this.#dir, 'cni.sock'), '--log-level', 'debug'],
    ];
    const stdio = ['ignore', 'pipe', 'pipe'] as const;
    this.#child = spawn('nsenter', [`--net=${netns}`, process.execPath, ...args], {
      cwd: packageRoot(),
      stdio: [...stdio],
    });
  }

  async started(): Promise<void> {
    for (const stream of [this.#child.stdout, this.#child.stderr])
      createInterface({ input: stream }).on('line', (line) => {
        this.#lines.push(line);
        if (line.includes('agent started')) this.#child.emit('started');
      });
    const ended = once(this.#child, 'exit').then(() => assert.fail(this.#lines.join('\n')));
    await Promise.race([once(this.#child, 'started'), ended]);
    void ended.catch(() => undefined);
  }

  async stop(): Promise<void> {
    const exited = once(this.#child, 'exit');
    this.#child.kill('SIGTERM');
    await exited;
  }

  [Symbol.dispose](): void {
    this.#child.kill('SIGKILL');
    this.#bpffs[Symbol.dispose]();
    rmSync(this.#dir, { recursive: true, force: true });
  }
}
