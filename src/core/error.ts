/**
 * The one error class of the project and the table of its codes.
 *
 * A message says operation, object and what went wrong; the lower error is `cause` and is never repeated in the
 * message, because the chain is printed once, at the edge, by `formatErrorChain`. Layers subclass where callers
 * need more than the code (a verifier log, an errno, an HTTP status).
 */

/**
 * Every code and its meaning. A code is permanent: scripts and alerts match on it. docs/reference/errors.md
 * lists the same codes; a test compares the two.
 */
export const errorCodes = {
  // addresses and input
  invalid_argument: 'A value given to a command, a flag or a function is malformed.',
  invalid_config: 'A configuration file or a plugin configuration is malformed.',
  invalid_resource: 'A Kubernetes object has a field that is malformed or contradicts another.',
  // kernel
  syscall_failed: 'A system call failed; the errno name is in the message.',
  unsupported_kernel: 'The running kernel lacks a feature; the minimum version is in the message.',
  permission_denied: 'The process lacks a privilege it needs.',
  not_found: 'The object that was named does not exist.',
  already_exists: 'The object to be made exists already and differs.',
  verifier_rejected: "The kernel's verifier refused an eBPF program; its log is attached.",
  bad_object_file: 'An eBPF object file is damaged or not of the expected form.',
  netlink_failed: 'The kernel refused an rtnetlink request.',
  closed: 'A kernel resource was used after it was closed.',
  // datapath and policy
  datapath_incomplete: 'A hook, program or map of an endpoint is missing from the kernel.',
  limit_exceeded: 'A named limit was reached (docs/reference/limits.md).',
  // Kubernetes
  kube_config: 'The kubeconfig is missing, damaged or names no cluster.',
  kube_unreachable: 'The API server could not be reached or broke the connection.',
  kube_unauthorized: 'The API server refused the credentials (401).',
  kube_forbidden: 'The credentials do not allow the request (403).',
  kube_not_found: 'The API server does not know the object or the resource (404).',
  kube_conflict: 'The object changed or exists already (409).',
  kube_expired: 'The resourceVersion or continue token is too old (410).',
  kube_invalid: 'The API server refused the object (400, 415 or 422).',
  kube_throttled: 'The API server asked to try again later (429).',
  kube_server_error: 'The API server failed (5xx).',
  kube_bad_answer: 'The API server answered with something that is not a Kubernetes object.',
  // CNI and addresses
  cni_failed: 'A CNI plugin failed; its code and message are in the message.',
  agent_unavailable: 'The node agent does not answer on its socket.',
  ipam_exhausted: 'No pool that matches the pod has a free address.',
  ipam_no_pool: 'No pool matches the pod.',
  ipam_address_in_use: 'Somebody else on the link has the address.',
  ipam_conflict: 'Another node kept changing the same pool; the allocation was given up.',
  // controller and lab
  webhook_failed: 'An admission webhook could not be called.',
  lab_conflict: 'A lab exists already, or what is left of one is in the way.',
  lab_failed: 'A part of the lab did not start or stopped.',
  process_failed: 'A child process failed; its exit status is in the message.',
  vm_failed: 'The small virtual machine did not boot or did not answer.',
  // everywhere
  timeout: 'Something did not happen within its time limit.',
  cancelled: 'The operation was stopped by its caller.',
  internal: 'A bug of Sluice: something that cannot happen happened.',
} as const;

export type ErrorCode = keyof typeof errorCodes;

export interface SluiceErrorOptions {
  readonly code: ErrorCode;
  /** A verb in the infinitive: "attach tcx ingress". */
  readonly operation: string;
  /** What it was done to, as its user would name it: "eth0 in /run/netns/x", "pod demo/web-1". */
  readonly object: string;
  /** What went wrong, without the cause's message. */
  readonly what: string;
  /** What the reader can do about it, where that is known. */
  readonly remedy?: string | undefined;
  readonly cause?: unknown;
}

export class SluiceError extends Error {
  readonly code: ErrorCode;
  readonly operation: string;
  readonly object: string;
  readonly remedy: string | undefined;

  constructor(options: SluiceErrorOptions) {
    super(
      `${options.operation} ${options.object}: ${options.what}`,
      options.cause === undefined ? undefined : { cause: options.cause },
    );
    this.name = new.target.name;
    this.code = options.code;
    this.operation = options.operation;
    this.object = options.object;
    this.remedy = options.remedy;
  }
}

/** Whether the error, or one that caused it, has this code. */
export function hasErrorCode(error: unknown, code: ErrorCode): boolean {
  return errorChain(error).some((link) => link instanceof SluiceError && link.code === code);
}

/** "a: b: c (remedy)": the messages from the outermost to the root cause, then the first remedy in the chain. */
export function formatErrorChain(error: unknown): string {
  const chain = errorChain(error);
  const messages = chain.map(messageOf).filter((message, index, all) => message !== '' && message !== all[index - 1]);
  const remedy = chain.find((link) => link instanceof SluiceError && link.remedy !== undefined);
  const text = messages.join(': ');
  return remedy instanceof SluiceError ? `${text} (${remedy.remedy})` : text;
}

/** A chain longer than this is a loop or a bug. */
const maxChainLength = 16;

function errorChain(error: unknown): unknown[] {
  const chain: unknown[] = [];
  let link: unknown = error;
  while (link !== undefined && link !== null && !chain.includes(link) && chain.length < maxChainLength) {
    chain.push(link);
    link = link instanceof Error ? link.cause : undefined;
  }
  return chain;
}

function messageOf(link: unknown): string {
  if (link instanceof AggregateError && link.message === '') return link.errors.map(messageOf).join('; ');
  if (link instanceof Error) return link.message === '' ? link.name : link.message;
  return typeof link === 'string' ? link : (JSON.stringify(link) ?? typeof link);
}
