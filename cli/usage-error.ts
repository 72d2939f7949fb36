/** The operator asked for something that does not exist or makes no sense; nothing was done. */
export class UsageError extends Error {}
