/** What holds an engine, for callers that wait for it. */
export type HoldView =
  | { kind: "call"; method: string }
  | { kind: "turn"; turnId: string; taskId: string; status: string; isWaitingForPerson: boolean }
  /** The turn has ended here, and the engine may still work on it. The hold ends at that instant or earlier. */
  | { kind: "ended_turn"; turnId: string; taskId: string; reason: string; until: string };

/** The user of a hold. It is asked for its view only when a caller is told what holds the engine. */
export interface Holder {
  toHoldView(): HoldView;
}

/** The user of a hold for one call. */
export function callHolder(method: string): Holder {
  return { toHoldView: () => ({ kind: "call", method }) };
}

const NAMES: Readonly<Record<HoldView["kind"], readonly [one: string, many: string]>> = {
  turn: ["turn", "turns"],
  call: ["call", "calls"],
  ended_turn: ["turn that has ended here", "turns that have ended here"],
};
const MAX_SHOWN = 5;
const TASK_ID_SHOWN_LENGTH = 80;

/** Says in one line what holds an engine. */
export function describeHolds(views: readonly HoldView[]): string {
  const kinds = Object.entries(NAMES).flatMap(([kind, [one, many]]) => {
    const count = views.filter((view) => view.kind === kind).length;
    return count === 0 ? [] : [`${count} ${count === 1 ? one : many}`];
  });
  const shown = views.slice(0, MAX_SHOWN).map(describe);
  const more = views.length > MAX_SHOWN ? [`${views.length - MAX_SHOWN} more`] : [];
  return `${kinds.join(", ")} (${[...shown, ...more].join("; ")})`;
}

function describe(view: HoldView): string {
  switch (view.kind) {
    case "call":
      return `a call of ${view.method}`;
    case "turn": {
      const waits = view.isWaitingForPerson ? ", waiting for a person's answer" : "";
      return `turn ${view.turnId} of task ${toShown(view.taskId)}: ${view.status}${waits}`;
    }
    case "ended_turn":
      return `turn ${view.turnId} of task ${toShown(view.taskId)}: ended here (${view.reason}), but its engine may still work on it, so it holds the engine until ${view.until} at the longest`;
  }
}

function toShown(taskId: string): string {
  const isLong = taskId.length > TASK_ID_SHOWN_LENGTH;
  return JSON.stringify(isLong ? `${taskId.slice(0, TASK_ID_SHOWN_LENGTH)}…` : taskId);
}
