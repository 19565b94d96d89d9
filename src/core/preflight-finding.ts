/** What a check before an installation found. */
export interface PreflightFinding {
  /** What was looked at: "kernel", "cni executables", "rbac" … */
  readonly check: string;
  /** `problem`: Sluice, or a part of it, will not work; `warning`: it works with less, or beside something that may surprise. */
  readonly state: 'ok' | 'warning' | 'problem';
  readonly what: string;
  readonly remedy?: string;
}
