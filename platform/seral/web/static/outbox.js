// Answers that the server has not confirmed yet. They outlive the tab; each has a key, so that none is written twice.
import { post, Refused } from "./api.js";

export class Outbox {
  /** `refused(item, error)` is told of an answer that the server will never take. */
  constructor(person, refused) {
    this.prefix = `seral:answer:${person}:`;
    this.refused = refused;
    this.last = 0;
  }

  /** Oldest first; those of other tabs of the same person too. */
  items() {
    const names = Object.keys(localStorage).filter((name) => name.startsWith(this.prefix));
    return names.map((name) => JSON.parse(localStorage.getItem(name))).sort((a, b) => a.at - b.at);
  }

  has(question) {
    return this.items().some((item) => item.answer.question === question);
  }

  put(answer, correction) {
    this.last = Math.max(Date.now(), this.last + 1);
    localStorage.setItem(this.prefix + answer.key, JSON.stringify({ at: this.last, correction, answer }));
  }

  /** Send all that waits, in order. Throws Unreachable, or Refused when the link is out; what waits then stays. */
  async send() {
    for (let items = this.items(); items.length; items = this.items()) {
      const [{ answer }] = items;
      try {
        await post("answers", answer);
      } catch (error) {
        if (!(error instanceof Refused) || error.out) throw error;
        this.refused(answer, error);
      }
      localStorage.removeItem(this.prefix + answer.key);
    }
  }
}
