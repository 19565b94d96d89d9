/** What the walkthrough does to a cluster: the same steps through kubectl, or through the API where there is no kubectl. */

export interface PodRef {
  readonly namespace: string;
  readonly name: string;
}

export interface ContainerRef extends PodRef {
  readonly container?: string;
}

export interface ExecResult {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** The fields the walkthrough looks at. */
export interface PodView extends PodRef {
  readonly ip: string | undefined;
  readonly node: string | undefined;
  readonly ready: boolean;
}

export interface Cluster {
  /** How a person would see it named: "kubectl v1.32.4" or "the API (no kubectl here)". */
  readonly description: string;
  /** Applies a file of YAML documents; returns what a person would have seen. */
  apply(file: string): Promise<string>;
  remove(file: string): Promise<string>;
  pods(namespace: string, selector: string): Promise<PodView[]>;
  /** `spec.config` of a NetworkAttachmentDefinition; undefined when it does not exist. */
  attachmentConfig(namespace: string, name: string): Promise<string | undefined>;
  annotate(pod: PodRef, annotations: Readonly<Record<string, string | null>>): Promise<void>;
  /** Runs a command in the container, or in the pod's only one. */
  exec(pod: ContainerRef, command: readonly string[], timeoutMs: number): Promise<ExecResult>;
}
