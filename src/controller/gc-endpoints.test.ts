import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { SpiderEndpoint } from '../api/spiderendpoint.ts';
import { silentLogger } from '../core/log.ts';
import { EndpointCleaner } from './gc-endpoints.ts';

function endpoint(name: string, podUid: string): SpiderEndpoint {
  const status = {
    current: { uid: podUid, node: 'n', ips: [] },
    ownerControllerType: 'Pod',
    ownerControllerName: name,
  };
  return { metadata: { namespace: 'ns', name, uid: `e-${name}` }, status };
}

function world(allocatedIPs: string, pods: Readonly<Record<string, string>> = {}) {
  let endpoints = ['a', 'b'].map((name) => endpoint(name, `u-${name}`));
  const state = { allocatedIPs, isDown: false };
  const cleaner = new EndpointCleaner({
    endpoints: {
      list: async () => endpoints,
      remove: async ({ metadata }) => void (endpoints = endpoints.filter((each) => each.metadata.uid !== metadata.uid)),
    },
    listPools: async () => [
      {
        metadata: { name: 'p' },
        spec: { subnet: '10.0.0.0/24' },
        status: { allocatedIPs: state.allocatedIPs },
      },
    ],
    readPod: async (_, name) => {
      if (state.isDown) throw new Error('no answer');
      const uid = pods[name];
      return uid === undefined ? undefined : { metadata: { name, uid } };
    },
    log: silentLogger,
  });
  return { state, cleaner };
}

describe('endpoints without a record', () => {
  it('go at the second look; those with a record, by UID or by name, stay', async () => {
    const { cleaner } = world('{"10.0.0.1":{"pod":"ns/b","podUid":"u-old"}}');
    assert.deepEqual([await cleaner.clean(), await cleaner.clean(), await cleaner.clean()], [[], ['ns/a'], []]);
  });

  it('stay when the record was only late', async () => {
    const { cleaner, state } = world('{"10.0.0.1":{"pod":"ns/b","podUid":"u-b"}}');
    await cleaner.clean();
    state.allocatedIPs = '{"10.0.0.1":{"pod":"ns/b","podUid":"u-b"},"10.0.0.2":{"pod":"x/y","podUid":"u-a"}}';
    assert.deepEqual([await cleaner.clean(), await cleaner.clean()], [[], []]);
  });

  it('stay with their pod, go when another has its name', async () => {
    const { cleaner } = world('', { a: 'u-a', b: 'another' });
    await cleaner.clean();
    assert.deepEqual(await cleaner.clean(), ['ns/b']);
  });

  it('stay while the API server does not answer', async () => {
    const { cleaner, state } = world('');
    await cleaner.clean();
    state.isDown = true;
    assert.deepEqual(await cleaner.clean(), []);
    state.isDown = false;
    assert.deepEqual(await cleaner.clean(), ['ns/a', 'ns/b']);
  });
});
