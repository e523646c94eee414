// The conversations that this browser keeps, the last changed first.

import { Store } from "./store";
import { exportText, importText } from "./transfer";
import { type Conversation, newId } from "./tree";

const SAVE_TIME = 300;

export class Library {
  conversations: Conversation[] = [];
  private store!: Store;
  /** Those that have changed, and when they will be written. */
  private readonly unsaved = new Map<string, number>();

  constructor(
    /** Called where a conversation could not be kept. */
    private readonly onTrouble: (text: string) => void,
  ) {}

  async open(): Promise<void> {
    this.store = await Store.open();
    this.conversations = await this.store.all().catch(() => []);
    this.sort();
    // What is begun when the page goes may come too late; a page is mostly hidden before.
    addEventListener("pagehide", () => this.saveAll());
    addEventListener("visibilitychange", () => {
      if (document.visibilityState === "hidden") this.saveAll();
    });
  }

  /** Whether anything is kept when the page is closed. */
  get isLasting(): boolean {
    return this.store.isLasting;
  }

  find(id: string | undefined): Conversation | undefined {
    return this.conversations.find((conversation) => conversation.id === id);
  }

  /** Takes a conversation in, or to the place where it belongs now. */
  keep(conversation: Conversation): void {
    if (!this.conversations.includes(conversation)) this.conversations.unshift(conversation);
    this.sort();
    this.save(conversation);
  }

  /** Writes a conversation in a moment: while an answer comes, that is often enough. One that is not kept yet is not written. */
  save(conversation: Conversation): void {
    if (!this.conversations.includes(conversation) || this.unsaved.has(conversation.id)) return;
    const write = () => {
      this.unsaved.delete(conversation.id);
      this.store.put(conversation).catch(() => this.onTrouble("This browser has no room left to keep conversations."));
    };
    this.unsaved.set(conversation.id, setTimeout(write, SAVE_TIME));
  }

  remove(conversation: Conversation): void {
    this.conversations = this.conversations.filter((other) => other !== conversation);
    this.forget(conversation.id);
    void this.store.remove(conversation.id).catch(() => {});
  }

  /** Takes what other tabs have changed, but for what is `busy` here or has yet to be written. */
  async readAgain(busy: (id: string) => boolean): Promise<void> {
    const kept = await this.store.all().catch(() => null);
    if (!kept || !this.isLasting) return;
    const isOwn = ({ id }: Conversation) => this.unsaved.has(id) || busy(id);
    this.conversations = [...this.conversations.filter(isOwn), ...kept.filter((conversation) => !isOwn(conversation))];
    this.sort();
  }

  /** Has the browser download conversations as a file. */
  export(conversations: Conversation[]): void {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([exportText(conversations)], { type: "application/json" }));
    link.download = `pippin-conversations-${new Date().toISOString().slice(0, 10)}.json`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }

  /** Takes in what a file holds, and returns what to say of it. */
  async import(file: File): Promise<string> {
    try {
      const found = importText(await file.text());
      let added = 0;
      for (const conversation of found) {
        const known = this.find(conversation.id);
        if (known && known.updated === conversation.updated) continue;
        if (known) conversation.id = newId();
        this.keep(conversation);
        added += 1;
      }
      const there = found.length - added;
      const rest = there > 0 ? `, ${there} were here already` : "";
      return `${added} ${added === 1 ? "conversation" : "conversations"} imported${rest}`;
    } catch (error) {
      return `Nothing was imported: ${error instanceof Error ? error.message : error}.`;
    }
  }

  private sort(): void {
    this.conversations.sort((a, b) => b.updated - a.updated);
  }

  private forget(id: string): void {
    clearTimeout(this.unsaved.get(id));
    this.unsaved.delete(id);
  }

  private saveAll(): void {
    for (const conversation of this.conversations) {
      if (!this.unsaved.has(conversation.id)) continue;
      this.forget(conversation.id);
      void this.store.put(conversation).catch(() => {});
    }
  }
}
