import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'node:test';
import type { Logger } from './log.ts';
import { silentLogger } from './log.ts';
import { ManualClock } from './manual-clock.ts';
import { BoundedRunner, type BoundedRunnerOptions } from './runner.ts';

describe('BoundedRunner', () => {
  let clock: ManualClock;
  let stop: AbortController;
  let startMs: number;
  let runsAtMs: number[];
  let stopped: Promise<void> | undefined;

  beforeEach(() => {
    clock = new ManualClock();
    stop = new AbortController();
    startMs = clock.nowMs();
    runsAtMs = [];
    stopped = undefined;
  });
  afterEach(async () => {
    stop.abort();
    await stopped;
    assert.equal(clock.sleeping, 0, 'a sleep outlived the runner');
  });

  function start(options: Partial<BoundedRunnerOptions> = {}): BoundedRunner {
    const run = options.run ?? ((): void => undefined);
    const runner = new BoundedRunner({
      name: 'test',
      clock,
      log: silentLogger,
      minIntervalMs: 10,
      ...options,
      run: (signal) => {
        runsAtMs.push(clock.nowMs() - startMs);
        return run(signal);
      },
    });
    stopped = runner.start(stop.signal);
    return runner;
  }

  it('does nothing until it is marked', async () => {
    start();
    await clock.advance(1000);
    assert.deepEqual(runsAtMs, []);
  });

  it('runs at once, then not before the minimum interval, once for many marks', async () => {
    const runner = start();
    await clock.advance(5);
    runner.markDirty();
    await clock.advance(0);
    for (let i = 0; i < 3; i++) runner.markDirty();
    await clock.advance(100);
    assert.deepEqual(runsAtMs, [5, 15]);
  });

  it('runs once per maximum interval although nothing is marked', async () => {
    start({ maxIntervalMs: 100 });
    await clock.advance(320);
    assert.deepEqual(runsAtMs, [100, 210, 320]);
  });

  it('runs again when it is marked during a run, and never twice at once', async () => {
    let running = 0;
    const runner: BoundedRunner = start({
      run: async () => {
        assert.equal(++running, 1);
        if (runsAtMs.length === 1) runner.markDirty();
        await clock.sleep(50);
        running--;
      },
    });
    runner.markDirty();
    await clock.advance(500);
    assert.deepEqual(runsAtMs, [0, 60]);
  });

  it('tries again after a failure with growing pauses, and starts small again after a success', async () => {
    const errors: string[] = [];
    const log: Logger = { ...silentLogger, error: (_fields, message) => errors.push(message) };
    const runner = start({
      log,
      initialBackoffMs: 100,
      maxBackoffMs: 300,
      run: () => {
        if (runsAtMs.length <= 4 || runsAtMs.length === 6) throw new Error('no');
      },
    });
    runner.markDirty();
    await clock.advance(2000);
    assert.deepEqual(runsAtMs, [0, 110, 320, 630, 940]);
    assert.deepEqual(errors, new Array(4).fill('run failed: no'));
    runner.markDirty();
    await clock.advance(500);
    assert.deepEqual(runsAtMs.slice(5), [2000, 2110]);
  });

  it('does not wait for the backoff when something new comes', async () => {
    const runner = start({
      initialBackoffMs: 1000,
      run: () => {
        if (runsAtMs.length === 1) throw new Error('no');
      },
    });
    runner.markDirty();
    await clock.advance(50);
    runner.markDirty();
    await clock.advance(100);
    assert.deepEqual(runsAtMs, [0, 50]);
  });

  it('runOnce settles as the next run does', async () => {
    const runner = start({
      run: () => {
        if (runsAtMs.length === 1) throw new Error('first');
      },
    });
    const first = assert.rejects(runner.runOnce(), /first/);
    await clock.advance(0);
    await first;
    const second = runner.runOnce();
    await clock.advance(200);
    await second;
  });

  it('ends after the run in progress, and rejects who still waits', async () => {
    let ended = false;
    const runner = start({
      run: async () => {
        await clock.sleep(50);
        ended = true;
      },
    });
    runner.markDirty();
    await clock.advance(1);
    const late = assert.rejects(runner.runOnce(), /was stopped/);
    stop.abort();
    await clock.advance(100);
    await stopped;
    await late;
    assert.ok(ended);
    assert.equal(runsAtMs.length, 1);
  });
});
