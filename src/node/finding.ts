// What an examination of a node or a set-up finds.

/** One thing that was looked at. A warning may be intended; what fails cannot work. */
export type Finding = {
  readonly level: FindingLevel;
  /** The variable, provider, runtime or file that was looked at. */
  readonly subject: string;
  /** What it does, as the rest of a sentence. */
  readonly message: string;
  readonly hint?: string | undefined;
  /** Why, for programs, where they decide by it: a service has not read what is on disk. */
  readonly reason?: 'restart-needed';
};

export const FINDING_LEVELS = ['fail', 'ok', 'warn'] as const;
export type FindingLevel = (typeof FINDING_LEVELS)[number];
