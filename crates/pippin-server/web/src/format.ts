// Numbers as people read them.

export const count = (value: number): string => value.toLocaleString("en");

/** A time in milliseconds. */
export function time(milliseconds: number): string {
  const seconds = milliseconds / 1000;
  if (seconds < 1) return `${Math.round(milliseconds)} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
}

/**
 * How fast so many tokens came in a time. Nothing where that was so short that what was measured is how they came in pieces.
 */
export function speed(tokens: number, milliseconds: number): string | undefined {
  if (milliseconds < 200) return undefined;
  const rate = tokens / (milliseconds / 1000);
  return `${rate < 10 ? rate.toFixed(1) : count(Math.round(rate))} tokens/s`;
}

export const tokens = (value: number): string => `${count(value)} ${value === 1 ? "token" : "tokens"}`;

/** The part of the list of conversations where a time belongs. */
export function period(then: number, now: number): string {
  const today = new Date(now).setHours(0, 0, 0, 0);
  const day = 86_400_000;
  if (then >= today) return "Today";
  if (then >= today - day) return "Yesterday";
  if (then >= today - 7 * day) return "Last 7 days";
  if (then >= today - 30 * day) return "Last 30 days";
  return "Earlier";
}
