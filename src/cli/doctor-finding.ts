// One thing that the doctor has looked at.

/** A warning may be meant so; a failure is none that could work. */
export type Finding = {
  readonly level: 'fail' | 'ok' | 'warn';
  /** The variable, provider or file that was looked at. */
  readonly subject: string;
  /** What it does, as the rest of a sentence. */
  readonly message: string;
  readonly hint?: string;
};
