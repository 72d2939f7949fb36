/** Below what a test may take: what it waited for in vain is said, and what it started is ended. */
const patienceMs = 240_000;

/** The first answer that `holds`; asked again until then. Throws with the last one when none does for minutes. */
export async function askUntil<Answer>(
  ask: () => Promise<Answer>,
  holds: (answer: Answer) => boolean,
): Promise<Answer> {
  const deadline = performance.now() + patienceMs;
  for (;;) {
    const answer = await ask();
    if (holds(answer)) return answer;
    if (performance.now() > deadline) throw new Error(`Still ${JSON.stringify(answer)}`);
  }
}
