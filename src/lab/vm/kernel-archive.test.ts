import assert from 'node:assert/strict';
import { chmodSync, existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { hasErrorCode } from '../../core/error.ts';
import { ManualClock } from '../../core/manual-clock.ts';
import { fetchKernel } from './kernel-archive.ts';
import { findVmPrograms } from './requirements.ts';

const kernel = 'linux-image-6.12.1-amd64';

describe('a mirror that is out of reach for a moment', () => {
  let dir: string;
  let clock: ManualClock;
  let progress: string[];
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'sluice-archive-'));
    [clock, progress] = [new ManualClock(), []];
  });
  afterEach(() => rmSync(dir, { recursive: true, force: true }));

  function program(name: string, script: string): string {
    const path = join(dir, name);
    writeFileSync(path, `#!/bin/sh\n${script}\n`);
    chmodSync(path, 0o755);
    return path;
  }

  /** An apt that knows the kernel, and cannot download it the first `failures` times. */
  function fetchWith(failures: number): Promise<string> {
    const programs = {
      ...findVmPrograms(),
      'apt-cache': program('apt-cache', `case "$*" in *policy*) printf '${kernel}:\\n  Candidate: 6.12.1\\n';; esac`),
      'apt-get': program(
        'apt-get',
        `echo x >>"${dir}/calls"; [ $(wc -l <"${dir}/calls") -gt ${failures} ] || { echo 'no route' >&2; exit 100; }; touch k.deb`,
      ),
      dpkg: program('dpkg', 'mkdir -p "$3"'),
    };
    const onProgress = (line: string): number => progress.push(line);
    return fetchKernel({ kernel, cacheDir: dir, programs, clock, onProgress }, dir);
  }

  it('is asked again', async () => {
    const fetched = fetchWith(2);
    await clock.advance(5_000);
    await clock.advance(30_000);
    assert.equal(await fetched, kernel);
    assert.ok(existsSync(join(dir, 'root')));
    assert.match(progress[1] ?? '', /apt-get download.*no route.*; once more in 5 s$/);
    assert.equal(progress.length, 5);
  });

  it('is an error that names the kernel when it stays away', async () => {
    const fetched = assert.rejects(
      fetchWith(100),
      (error) => hasErrorCode(error, 'vm_failed') && String(error).includes(kernel),
    );
    await clock.advance(5_000);
    await clock.advance(30_000);
    await fetched;
  });
});
