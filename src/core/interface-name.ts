/** What the kernel takes as the name of a network interface: IFNAMSIZ - 1, and dev_valid_name(), net/core/dev.c. */
export const interfaceNamePattern = /^(?!\.{1,2}$)[^/:\s\0]{1,15}$/;
