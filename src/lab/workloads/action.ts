/** What a plan asks for, and the one place that does it. */

import type { KubeObject } from '../../api/kubernetes.ts';
import type { GroupVersionResource } from '../../api/resources.ts';
import { formatErrorChain } from '../../core/error.ts';
import type { KubeClient } from '../../kube/client.ts';
import { isAlreadyExists, isConflict, isNotFound } from '../../kube/error.ts';
import { referenceTo, type EventRecorder } from '../../kube/event-recorder.ts';

/** Told when the action was done; `{name}` stands for the name of the object made. */
export interface ActionNote {
  readonly about: KubeObject;
  readonly aboutGvr: GroupVersionResource;
  readonly reason: string;
  readonly message: string;
  /** "Error creating", "Error deleting": begins the warning if the server refuses. */
  readonly failure?: { readonly reason: string; readonly message: string };
}

export type Action = { readonly gvr: GroupVersionResource; readonly object: KubeObject; readonly note?: ActionNote } & (
  { readonly verb: 'create' | 'delete' | 'replace' | 'status' } | { readonly verb: 'patch'; readonly body: unknown }
);

export interface ActionContext {
  readonly client: KubeClient;
  readonly recorder: EventRecorder;
  /** Takes the server's answer into the local copy, which its watch may fill later. */
  readonly observe: (gvr: GroupVersionResource, object: KubeObject) => void;
  /** The object was asked to go; the local copy does not show that yet. */
  readonly expectDeleted: (object: KubeObject) => void;
}

/**
 * Does the actions in order and stops at the first failure, which is thrown. Someone else's change in between
 * (a conflict, an object that is there or gone already) is no failure: the next plan sees it. True if all were done.
 */
export async function applyActions(
  context: ActionContext,
  actions: readonly Action[],
  signal: AbortSignal,
): Promise<boolean> {
  let complete = true;
  for (const action of actions) {
    signal.throwIfAborted();
    try {
      const answer = await applyAction(context, action, signal);
      if (action.note !== undefined) recordDone(context, action.note, answer ?? action.object);
    } catch (error) {
      if (isConflict(error) || isAlreadyExists(error) || isNotFound(error)) {
        complete = false;
        continue;
      }
      if (action.note?.failure !== undefined) recordFailure(context, action.note, error);
      throw error;
    }
  }
  return complete;
}

async function applyAction(
  context: ActionContext,
  action: Action,
  signal: AbortSignal,
): Promise<KubeObject | undefined> {
  const { client } = context;
  const { gvr, object } = action;
  const { namespace, name = '', uid } = object.metadata ?? {};
  if (action.verb === 'delete') {
    await client.delete(
      gvr,
      { namespace, name },
      { propagationPolicy: 'Background', preconditions: { uid } },
      { signal },
    );
    context.expectDeleted(object);
    return undefined;
  }
  const answer = await send();
  context.observe(gvr, answer);
  return answer;

  function send(): Promise<KubeObject> {
    switch (action.verb) {
      case 'create':
        return client.create(gvr, object, { signal });
      case 'replace':
        return client.replace(gvr, object, { signal });
      case 'status':
        return client.replaceStatus(gvr, object, { signal });
      case 'patch':
        return client.patch(gvr, { namespace, name }, { type: 'merge', body: action.body }, { signal });
      case 'delete':
        throw new Error('handled above');
    }
  }
}

function recordDone({ recorder }: ActionContext, note: ActionNote, object: KubeObject): void {
  const message = note.message.replace('{name}', object.metadata?.name ?? '');
  recorder.record({ about: referenceTo(note.aboutGvr, note.about), type: 'Normal', reason: note.reason, message });
}

function recordFailure({ recorder }: ActionContext, note: ActionNote, error: unknown): void {
  const { reason = '', message = '' } = note.failure ?? {};
  const about = referenceTo(note.aboutGvr, note.about);
  recorder.record({ about, type: 'Warning', reason, message: `${message}: ${formatErrorChain(error)}` });
}
