/** Named limits of the API client; docs/reference/limits.md lists the same, and a test compares the two. */
export const kubeLimits = {
  /** Objects per page of a list, as kubectl's and client-go's. */
  pageSize: 500,
  /** An object of etcd is at most 1.5 MiB; a line of a watch that is longer than this is no event. */
  maxWatchLineBytes: 16 * 1024 * 1024,
  /** Milliseconds to the first byte of an answer. */
  requestTimeoutMs: 30_000,
  /** The longest pause of an informer between tries; up to half of it is added at random. */
  maxBackoffMs: 30_000,
  /** Event series remembered for counting; the one unused for longest is forgotten. */
  maxEventSeries: 4096,
  /** Characters of an event's message, as events.k8s.io allows for its note. */
  maxEventMessageLength: 1024,
} as const;
