/** The other side of an exchange said what cannot be: the attempt is over, and nothing of it was applied. */
export class ExchangeRefusal extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'ExchangeRefusal';
  }
}
