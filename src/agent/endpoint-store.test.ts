import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { silentLogger } from '../core/log.ts';
import { EndpointStore, type EndpointRecord } from './endpoint-store.ts';

const record: EndpointRecord = {
  formatVersion: 1,
  endpointId: 7,
  containerId: 'c0ffee'.repeat(60),
  ifName: 'eth0',
  networkName: 'n',
  netns: '/run/netns/x',
  netnsInode: '4026532000',
  pod: { namespace: 'demo', name: 'web', uid: 'u' },
  ips: ['10.0.0.1', 'fd00::1'],
  interfaces: ['eth0'],
  runtimeBandwidth: {},
  createdAt: '2026-01-01T00:00:00.000Z',
};

describe('the endpoint store', () => {
  let dir: string;
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'sluice-store-'));
  });
  afterEach(() => rmSync(dir, { recursive: true, force: true }));

  const open = (): EndpointStore => EndpointStore.open(dir, silentLogger);

  it('gives a new process what the last one wrote', () => {
    const store = open();
    store.put(record);
    store.put({ ...record, ifName: 'net1', endpointId: 8 });
    store.put({ ...record, ips: ['10.0.0.2'] });
    const again = open();
    assert.deepEqual(again.get(record.containerId, 'eth0'), { ...record, ips: ['10.0.0.2'] });
    assert.deepEqual(
      again
        .ofContainer(record.containerId)
        .map((r) => r.endpointId)
        .sort(),
      [7, 8],
    );
    again.remove(record);
    assert.deepEqual(
      open()
        .list()
        .map((r) => r.ifName),
      ['net1'],
    );
    assert.equal(readdirSync(join(dir, 'endpoints')).length, 1);
  });

  it('keeps its files from other users', () => {
    open().put(record);
    const [name = ''] = readdirSync(join(dir, 'endpoints'));
    assert.equal(statSync(join(dir, 'endpoints')).mode & 0o777, 0o700);
    assert.equal(statSync(join(dir, 'endpoints', name)).mode & 0o777, 0o600);
  });

  it('sets a damaged record aside and reads the others; forgets a write that did not finish', () => {
    open().put(record);
    writeFileSync(join(dir, 'endpoints/half.json'), '{"formatVersion":1');
    writeFileSync(join(dir, 'endpoints/x.json.new'), '{');
    const messages: string[] = [];
    const log = { ...silentLogger, error: (_: object, message: string) => void messages.push(message) };
    assert.equal(EndpointStore.open(dir, log).list().length, 1);
    assert.equal(messages.length, 1);
    assert(readdirSync(join(dir, 'endpoints')).includes('half.json.damaged'));
    assert(!readdirSync(join(dir, 'endpoints')).includes('x.json.new'));
  });
});
