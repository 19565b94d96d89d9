import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { systemClock } from './clock.ts';
import { ManualClock } from './manual-clock.ts';

for (const [name, clock] of [
  ['systemClock', systemClock],
  ['ManualClock', new ManualClock()],
] as const) {
  describe(`${name}: the contract of every clock`, () => {
    it('rejects a sleep whose signal is aborted, before and during it', async () => {
      await assert.rejects(clock.sleep(60_000, AbortSignal.abort(new Error('before'))), /before/);
      const stop = new AbortController();
      const sleep = assert.rejects(clock.sleep(60_000, stop.signal), /during/);
      stop.abort(new Error('during'));
      await sleep;
    });

    it('gives an Error even if the signal was aborted with something else', async () => {
      await assert.rejects(clock.sleep(60_000, AbortSignal.abort('text')), { message: 'aborted', cause: 'text' });
    });
  });
}

describe('ManualClock', () => {
  it('wakes sleepers in the order in which they are due', async () => {
    const clock = new ManualClock(0);
    const woken: string[] = [];
    const sleep = async (ms: number): Promise<void> => {
      await clock.sleep(ms);
      woken.push(`${ms}@${clock.nowMs()}`);
    };
    const all = Promise.all([sleep(30), sleep(10), sleep(20)]);
    await clock.advance(25);
    assert.deepEqual(woken, ['10@10', '20@20']);
    await clock.advance(5);
    await all;
    assert.deepEqual(woken, ['10@10', '20@20', '30@30']);
  });
});
