/** The one table of built-in types. */
import { appsTypes } from './types-apps.ts';
import { batchTypes } from './types-batch.ts';
import { clusterTypes } from './types-cluster.ts';
import { metaTypes } from './types-meta.ts';
import { podTypes } from './types-pod.ts';
import { parseTypes, type TypeTable } from './types.ts';

export const typeTable: TypeTable = parseTypes(metaTypes, podTypes, clusterTypes, appsTypes, batchTypes);
