/** Entering, leaving, naming: the thread must be home again whatever happens inside. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { hasErrorCode } from '../core/error.ts';
import { createNamedNetns, Netns, netnsInode, removeNamedNetns, withNetns } from './netns.ts';
import { findMount } from './mount.ts';

function currentInode(): bigint {
  using netns = Netns.current();
  return netns.inode;
}

/** Names of the interfaces that the calling thread sees. */
function interfaces(): string[] {
  const lines = readFileSync('/proc/thread-self/net/dev', 'utf8').split('\n').slice(2);
  return lines.map((line) => line.split(':')[0]?.trim() ?? '').filter((name) => name !== '');
}

describe('netns', () => {
  let path = '';
  const home = currentInode();

  beforeEach(() => {
    path = `/run/netns/sluice-ns-${randomBytes(4).toString('hex')}`;
    createNamedNetns(path);
  });

  afterEach(() => {
    removeNamedNetns(path);
    assert.equal(currentInode(), home, 'the thread is not home');
  });

  it('is new, empty but for the loopback, and named by a mount', () => {
    assert.notEqual(netnsInode(path), home);
    assert.equal(findMount(path)?.fsType, 'nsfs');
    assert.deepEqual(withNetns(path, interfaces), ['lo']);
  });

  it('comes home with the result, also from a nested visit', () => {
    const seen = withNetns(path, () => {
      const outer = currentInode();
      using back = Netns.openPath(`/proc/${process.pid}/ns/net`);
      // The process's first thread is this one, so its /proc entry names the namespace it is in now.
      assert.equal(back.inode, outer);
      return withNetns(path, currentInode);
    });
    assert.equal(seen, netnsInode(path));
    assert.equal(currentInode(), home);
  });

  it('comes home when the function throws, and passes the error on', () => {
    assert.throws(
      () =>
        withNetns(path, () => {
          throw new Error('inside');
        }),
      /^Error: inside$/,
    );
    assert.equal(currentInode(), home);
  });

  it('refuses a function that would come back later', () => {
    const later = (): Promise<void> => Promise.resolve();
    assert.throws(() => withNetns(path, later as unknown as () => number), /setns must not span an await/);
    assert.equal(currentInode(), home);
  });

  it('refuses what is not a namespace, without leaving home', () => {
    assert.throws(() => withNetns('/dev/null', () => 1), /enter netns \/dev\/null: invalid argument \(EINVAL\)/);
    assert.throws(() => withNetns(`${path}-absent`, () => 1), /ENOENT/);
  });

  it('creates a name once, removes it as often as asked', () => {
    assert.throws(() => {
      createNamedNetns(path);
    }, /EEXIST/);
    assert.equal(findMount(path)?.fsType, 'nsfs', 'the one that was there is untouched');
    removeNamedNetns(path);
    removeNamedNetns(path);
    assert.equal(existsSync(path), false);
    assert.equal(netnsInode(path), undefined);
  });

  it('a handle outlives the name, and is refused after close', () => {
    const netns = Netns.openPath(path);
    removeNamedNetns(path);
    assert.deepEqual(withNetns(netns, interfaces), ['lo']);
    netns.close();
    netns.close();
    assert.throws(
      () => withNetns(netns, () => 1),
      (error: unknown) => hasErrorCode(error, 'closed'),
    );
  });
});
