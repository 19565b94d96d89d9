/** What the running kernel can do, found out by trying. */
import { closeSync } from 'node:fs';
import { Errno } from '../errno.ts';
import { callLoad } from './program.ts';
import { BpfAttr, BpfCommand } from './sys.ts';

const BPF_TCX_INGRESS = 46;
/** No device has it: a kernel with tcx says ENODEV or EBADF, one without says EINVAL for the attach type. */
const noSuchIfindex = 0x7fff_fffe;

/** `r0 = 0; exit`. */
const returnZero = Uint8Array.of(0xb7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0);

/** Links on the tc hooks: Linux 6.6. */
export function haveTcx(): boolean {
  const program = callLoad(() => new BpfAttr().u32(0, 3).u32(4, 2).pointer(8, returnZero).path(16, 'GPL'));
  if (program < 0) return false;
  try {
    const rc = new BpfAttr().u32(0, program).u32(4, noSuchIfindex).u32(8, BPF_TCX_INGRESS).call(BpfCommand.linkCreate);
    if (rc >= 0) closeSync(rc);
    return rc === -Errno.ENODEV;
  } finally {
    closeSync(program);
  }
}
