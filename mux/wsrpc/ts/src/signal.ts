/** Something that can be waited for. Who waits looks again at what has changed. */
export interface Signal {
  _wait(): Promise<void>;
  _fire(): void;
}

/** Makes a signal that wakes all who wait, each time it fires. */
export function createSignal(): Signal {
  let promise: Promise<void> | undefined;
  let resolve: (() => void) | undefined;
  return {
    _wait: () => (promise ??= new Promise((r) => (resolve = r))),
    _fire() {
      promise = undefined;
      resolve?.();
    },
  };
}
