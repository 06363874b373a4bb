// Counters, histograms and gauges whose labels come from closed sets, as Prometheus text.
// https://prometheus.io/docs/instrumenting/exposition_formats/

/** The values of a metric's labels in its order. They must come from closed sets of ours, never from a request. */
type LabelValues = readonly string[];

/** Something that writes its samples. */
interface Metric {
  render(): string;
}

/** A number that only grows, for each combination of labels. */
export class Counter implements Metric {
  readonly #name: string;
  readonly #help: string;
  readonly #labels: readonly string[];
  readonly #values = new Map<string, number>();

  /** @param known values of the only label that are shown from the start, as 0, so that their first increase is seen */
  constructor(name: string, help: string, labels: readonly string[], known: readonly string[] = []) {
    this.#name = name;
    this.#help = help;
    this.#labels = labels;
    for (const value of known) this.#values.set(value, 0);
  }

  add(...values: LabelValues): void {
    const key = values.join(SEPARATOR);
    this.#values.set(key, (this.#values.get(key) ?? 0) + 1);
  }

  render(): string {
    const samples = [...this.#values].map(
      ([key, value]) => `${this.#name}${formatLabels(this.#labels, key)} ${value}\n`,
    );
    return `${head(this.#name, this.#help, 'counter')}${samples.join('')}`;
  }
}

/** In no label's value. */
const SEPARATOR = ' ';

/** Seconds, from a local unwrap to the end of every call. */
const BUCKETS = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

type Distribution = { readonly counts: Float64Array; sum: number; count: number };

/** How long things take, for each combination of labels. */
export class Histogram implements Metric {
  readonly #name: string;
  readonly #help: string;
  readonly #labels: readonly string[];
  readonly #values = new Map<string, Distribution>();

  constructor(name: string, help: string, labels: readonly string[]) {
    this.#name = name;
    this.#help = help;
    this.#labels = labels;
  }

  observe(milliseconds: number, ...values: LabelValues): void {
    const key = values.join(SEPARATOR);
    let distribution = this.#values.get(key);
    if (distribution === undefined) {
      distribution = { counts: new Float64Array(BUCKETS.length), sum: 0, count: 0 };
      this.#values.set(key, distribution);
    }
    const seconds = milliseconds / 1000;
    const index = BUCKETS.findIndex((bound) => seconds <= bound);
    if (index >= 0) distribution.counts[index] = (distribution.counts[index] ?? 0) + 1;
    distribution.sum += seconds;
    distribution.count++;
  }

  render(): string {
    const lines = [head(this.#name, this.#help, 'histogram')];
    for (const [key, { counts, sum, count }] of this.#values) {
      const labels = formatLabels(this.#labels, key);
      let below = 0;
      for (const [index, bound] of BUCKETS.entries()) {
        below += counts[index] ?? 0;
        lines.push(`${this.#name}_bucket${withLabel(labels, 'le', String(bound))} ${below}\n`);
      }
      lines.push(`${this.#name}_bucket${withLabel(labels, 'le', '+Inf')} ${count}\n`);
      lines.push(`${this.#name}_sum${labels} ${sum}\n${this.#name}_count${labels} ${count}\n`);
    }
    return lines.join('');
  }
}

/** A number that is asked for when it is read. */
export class Gauge implements Metric {
  readonly #name: string;
  readonly #help: string;
  readonly #read: () => number;

  constructor(name: string, help: string, read: () => number) {
    this.#name = name;
    this.#help = help;
    this.#read = read;
  }

  render(): string {
    return `${head(this.#name, this.#help, 'gauge')}${this.#name} ${this.#read()}\n`;
  }
}

/** Numbers of a server that are read when somebody asks. */
export type ServerReadings = {
  readonly connections: () => number;
  readonly activeCalls: () => number;
  readonly queuedCalls: () => number;
  readonly bufferedBytes: () => number;
};

/** What every server of ours shows of itself. */
export function serverGauges(readings: ServerReadings): readonly Gauge[] {
  return [
    new Gauge('ocicrypt_kms_connections', 'Open connections.', readings.connections),
    new Gauge('ocicrypt_kms_active_calls', 'Calls that are worked on.', readings.activeCalls),
    new Gauge('ocicrypt_kms_queued_calls', 'Calls that wait.', readings.queuedCalls),
    new Gauge('ocicrypt_kms_buffered_bytes', 'Bytes of requests that are held.', readings.bufferedBytes),
  ];
}

/** What every server of ours says of its process. */
export function processGauges(): readonly Gauge[] {
  return [
    new Gauge('process_resident_memory_bytes', 'Resident memory.', () => process.memoryUsage.rss()),
    new Gauge('process_cpu_seconds_total', 'Processor time.', () => {
      const { user, system } = process.cpuUsage();
      return (user + system) / 1e6;
    }),
    new Gauge(
      'process_start_time_seconds',
      'When the process was started.',
      () => Math.round(performance.timeOrigin) / 1000,
    ),
  ];
}

/** Counts what every server of ours reads again while it runs. */
export function reloadCounters(): { readonly certificates: Counter; readonly policy: Counter } {
  const results = ['ok', 'failed'];
  return {
    certificates: new Counter(
      'ocicrypt_kms_certificate_reloads_total',
      'Reloads of certificates by result.',
      ['result'],
      results,
    ),
    policy: new Counter(
      'ocicrypt_kms_policy_reloads_total',
      'Reloads of the configuration by result.',
      ['result'],
      results,
    ),
  };
}

/** The media type of {@link renderMetrics}. */
export const METRICS_TYPE = 'text/plain; version=0.0.4; charset=utf-8';

export function renderMetrics(metrics: readonly Metric[]): string {
  return metrics.map((metric) => metric.render()).join('');
}

function head(name: string, help: string, type: string): string {
  return `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n`;
}

function formatLabels(names: readonly string[], key: string): string {
  const values = key.split(SEPARATOR);
  return `{${names.map((name, index) => `${name}="${values[index] ?? ''}"`).join(',')}}`;
}

function withLabel(labels: string, name: string, value: string): string {
  return `${labels.slice(0, -1)},${name}="${value}"}`;
}
