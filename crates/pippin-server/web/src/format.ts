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

export const speed = (tokensPerSecond: number): string =>
  `${tokensPerSecond < 10 ? tokensPerSecond.toFixed(1) : count(Math.round(tokensPerSecond))} tokens/s`;

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
