import { SluiceError } from '../core/error.ts';

/** The environment variables that agent and controller know, by Spiderpool's names. */

interface Variable<T> {
  /** Any of these; the first that is set counts. */
  readonly names: readonly string[];
  readonly fallback: T;
  /** Undefined when the text is not a value. */
  readonly parse: (text: string) => T | undefined;
  /** For the error: "a number from 0". */
  readonly form: string;
}

const text = (name: string, fallback: string): Variable<string> => ({
  names: [name],
  fallback,
  parse: (value) => value,
  form: 'a text',
});

const flag = (name: string, fallback: boolean): Variable<boolean> => ({
  names: [name],
  fallback,
  parse: (value) => (/^(true|1)$/i.test(value) ? true : /^(false|0)$/i.test(value) ? false : undefined),
  form: 'true or false',
});

const count = (name: string, fallback: number, max: number): Variable<number> => ({
  names: [name],
  fallback,
  parse: (value) => (/^\d+$/.test(value) && Number(value) <= max ? Number(value) : undefined),
  form: `a number from 0 to ${max}`,
});

const namespacedName = (name: string, fallback: string): Variable<string> => ({
  names: [name],
  fallback,
  parse: (value) => (/^[^/]+\/[^/]+$/.test(value) ? value : undefined),
  form: 'namespace/name',
});

const dayS = 86_400;

export const environmentVariables = {
  /** Attachment of pods that name none; "" when there is none. */
  multusClusterNetwork: text('MULTUS_CLUSTER_NETWORK', ''),
  /** The one SpiderCoordinator that counts. The first spelling is what charts write, the second what its document says. */
  coordinatorName: {
    ...text('', 'default'),
    names: ['SPIDERPOOL_COORDINATOR_DEAFULT_NAME', 'SPIDERPOOL_COORDINATOR_DEFAULT_NAME'],
  },
  cniConfigDir: text('SPIDERPOOL_CNI_CONFIG_DIR', '/etc/cni/net.d'),
  ciliumConfigMap: namespacedName('SPIDERPOOL_CILIUM_CONFIGMAP_NAMESPACE_NAME', 'kube-system/cilium-config'),
  multusConfigEnabled: flag('SPIDERPOOL_MULTUS_CONFIG_ENABLED', true),
  maxRecordsPerPool: count('SPIDERPOOL_IPPOOL_MAX_ALLOCATED_IPS', 5000, 1_000_000),
  releaseConflictIps: flag('SPIDERPOOL_ENABLED_RELEASE_CONFLICT_IPS', true),
  /** The two together: how long an agent waits for the pool of an application. */
  waitPoolStepS: count('SPIDERPOOL_WAIT_SUBNET_POOL_TIME_IN_SECOND', 2, dayS),
  waitPoolSteps: count('SPIDERPOOL_WAIT_SUBNET_POOL_MAX_RETRIES', 25, 100_000),
  gcEnabled: flag('SPIDERPOOL_GC_IP_ENABLED', true),
  gcIntervalS: count('SPIDERPOOL_GC_DEFAULT_INTERVAL_DURATION', 600, dayS),
  gcAdditionalDelayS: count('SPIDERPOOL_GC_ADDITIONAL_GRACE_DELAY', 0, dayS),
  gcTerminatingOnReadyNode: flag('SPIDERPOOL_GC_STATELESS_TERMINATING_POD_ON_READY_NODE_ENABLED', true),
  gcTerminatingOnNotReadyNode: flag('SPIDERPOOL_GC_STATELESS_TERMINATING_POD_ON_NOT_READY_NODE_ENABLED', true),
  gcRunningWithoutIps: flag('SPIDERPOOL_GC_ENABLE_STATELESS_RUNNING_POD_ON_EMPTY_POD_STATUS_IPS', false),
} as const;

type Variables = typeof environmentVariables;
export type EnvironmentSettings = {
  readonly [K in keyof Variables]: Variables[K] extends Variable<infer T> ? T : never;
};

export function environmentSettings(environment: Readonly<Record<string, string | undefined>>): EnvironmentSettings {
  const entries = Object.entries(environmentVariables).map(([key, variable]) => [
    key,
    valueOf(variable as Variable<unknown>, environment),
  ]);
  return Object.fromEntries(entries) as EnvironmentSettings;
}

function valueOf<T>(variable: Variable<T>, environment: Readonly<Record<string, string | undefined>>): T {
  // Charts write variables that are not set as "".
  const name = variable.names.find((candidate) => (environment[candidate] ?? '') !== '');
  if (name === undefined) return variable.fallback;
  const value = variable.parse(environment[name] ?? '');
  if (value !== undefined) return value;
  throw new SluiceError({
    code: 'invalid_config',
    operation: 'read',
    object: `environment variable ${name}`,
    what: `"${environment[name] ?? ''}" is not ${variable.form}`,
    remedy: `give it ${variable.form}, or unset it for its default, ${String(variable.fallback)}`,
  });
}
