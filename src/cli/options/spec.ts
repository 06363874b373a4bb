// What an entry of the table of options holds.

/** How an option's text becomes a value: repeated texts, one text, one of several, name=value pairs, time, a number, or a switch. */
export type OptionKind = 'list' | 'text' | 'choice' | 'pairs' | 'duration' | 'count' | 'switch';

export type OptionSpec = {
  readonly kind: OptionKind;
  /** What stands for the value in help; `forms.ts` says how some of these words are written. */
  readonly value?: string;
  readonly choices?: readonly string[];
  /** One sentence, lower case, for help and documentation. That lists and pairs are repeatable is said by the kind. */
  readonly describe: string;
  /** The member of the configuration file that means the same: a path if it is in a section, null if there is none. */
  readonly member?: readonly [string, string] | null;
  /**
   * Whether a variable of the environment may set it, for pipelines. What widens what is accepted has none, nor what cloud
   * libraries have variables of their own for.
   */
  readonly hasVariable?: true;
  /**
   * Whether it decides which keys may be used, who may call, or what is demanded of an image: a caller names that, and a
   * configuration file that was only found does not.
   */
  readonly isPolicy?: true;
  /** What holds if the option is not given. */
  readonly fallback?: string;
};

/** Whether an option may be given several times, all of which count. */
export function isRepeatable(kind: OptionKind): boolean {
  return kind === 'list' || kind === 'pairs';
}

/** Options that help and documentation show together, by name. */
export type OptionGroup = Readonly<Record<string, OptionSpec>>;
