// A limit as operators see it.
export interface LimitReport {
  readonly name: string;
  readonly used: number;
  readonly limit: number;
  /** How often it was the reason of a refusal, since the start; undefined where that is not counted. */
  readonly refused?: number;
}
