/** Whether the kernel takes it as the name of a network interface: dev_valid_name(), net/core/dev.c, and IFNAMSIZ. */
export function isInterfaceName(text: string): boolean {
  return /^(?!\.{1,2}$)[^/:\s]{1,15}$/.test(text);
}
