/** How a failed system call reads, and what code it gets. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { check, Errno, errnoName, isErrno, SyscallError } from './errno.ts';

describe('SyscallError', () => {
  const rows = [
    { errno: 2, message: 'unmount /x: no such file or directory (ENOENT)', code: 'syscall_failed' },
    { errno: 1, message: 'unmount /x: operation not permitted (EPERM)', code: 'permission_denied' },
    { errno: 13, message: 'unmount /x: permission denied (EACCES)', code: 'permission_denied' },
    // Kernel-internal and unknown to libc, yet bpf(2) returns it.
    { errno: 524, message: 'unmount /x: ENOTSUPP', code: 'syscall_failed' },
  ];
  for (const { errno, message, code } of rows) {
    it(message, () => {
      const error = new SyscallError({ operation: 'unmount', object: '/x', errno });
      assert.equal(error.message, message);
      assert.equal(error.code, code);
      assert.equal(error.errnoName, errnoName(errno));
    });
  }

  it('puts a known reason in the place of the errno text, and keeps the errno', () => {
    const error = new SyscallError({
      operation: 'attach tcx ingress',
      object: 'ifindex 3',
      errno: Errno.EINVAL,
      reason: 'this kernel has no tcx, which needs Linux 6.6',
      code: 'unsupported_kernel',
    });
    assert.equal(error.message, 'attach tcx ingress ifindex 3: this kernel has no tcx, which needs Linux 6.6 (EINVAL)');
    assert.equal(error.code, 'unsupported_kernel');
  });

  it('check passes results on and throws what a negative one stands for', () => {
    assert.equal(check(0, 'open', 'x'), 0);
    assert.throws(
      () => check(-Errno.EBUSY, 'open', 'x', 'close it first'),
      (error: unknown) => error instanceof SyscallError && error.errno === 16 && error.remedy === 'close it first',
    );
  });

  it('isErrno looks through causes, and knows the errors of Node’s fs', () => {
    const inner = new SyscallError({ operation: 'open', object: 'x', errno: Errno.ENOENT });
    assert.ok(isErrno(new Error('outer', { cause: inner }), Errno.EEXIST, Errno.ENOENT));
    assert.ok(isErrno(Object.assign(new Error('fs'), { errno: -2 }), Errno.ENOENT));
    assert.equal(isErrno(inner, Errno.EEXIST), false);
    assert.equal(isErrno('ENOENT', Errno.ENOENT), false);
  });
});
