// The state of the page, and what can be done to it. Components read it, and are told when it changes.

import { useEffect, useReducer } from "preact/hooks";

import { Answer } from "./answer";
import * as api from "./api";
import { Library } from "./library";
import { remember, remembered } from "./store";
import { add, choose, type Conversation, type Message, newConversation, type Setup, shown, titleOf } from "./tree";

export type Theme = "system" | "light" | "dark";
export type Dialog = "none" | "setup" | "key";

export interface Toast {
  text: string;
  action?: { label: string; run: () => void };
}

const EMPTY: Setup = { system: "", parameters: {}, tools: "" };
const TOAST_TIME = 8000;
const MODELS_TIME = 1500;

class App {
  readonly library = new Library((text) => this.say(text));
  current!: Conversation;
  models: api.Model[] = [];
  /** Tokens of a context, by model. */
  contexts = new Map<string, number>();
  /** Why there are no models; `null`: there are, or they have been asked for. */
  problem: string | null = null;
  /** A model that was chosen and is being loaded. */
  loading: { model: string; begin: number; controller: AbortController } | null = null;
  answers = new Map<string, Answer>();
  theme: Theme = "system";
  search = "";
  isDrawerOpen = false;
  dialog: Dialog = "none";
  toast: Toast | null = null;
  /** What is read to those who do not see the page. */
  announcement = "";
  private toastTimer = 0;
  private modelsTimer = 0;
  private readonly watchers = new Set<() => void>();
  private readonly liveWatchers = new Map<string, Set<() => void>>();
  private retry: (() => void) | null = null;

  // Who is told.

  watch(watcher: () => void): () => void {
    this.watchers.add(watcher);
    return () => this.watchers.delete(watcher);
  }

  changed(): void {
    for (const watcher of this.watchers) watcher();
  }

  /** The same for the answer that is being written, which changes with each token. */
  watchLive(id: string, watcher: () => void): () => void {
    const watchers = this.liveWatchers.get(id) ?? new Set();
    this.liveWatchers.set(id, watchers.add(watcher));
    return () => watchers.delete(watcher);
  }

  private live(id: string): void {
    for (const watcher of this.liveWatchers.get(id) ?? []) watcher();
  }

  say(text: string, action?: Toast["action"]): void {
    this.toast = action ? { text, action } : { text };
    clearTimeout(this.toastTimer);
    this.toastTimer = setTimeout(() => this.dismiss(), TOAST_TIME);
    this.changed();
  }

  dismiss(): void {
    this.toast = null;
    this.changed();
  }

  // The beginning.

  async start(): Promise<void> {
    const theme = remembered("theme");
    this.theme = theme === "light" || theme === "dark" ? theme : "system";
    await this.library.open();
    this.current = newConversation("", this.defaults());
    this.openFromAddress();
    addEventListener("hashchange", () => this.openFromAddress());
    addEventListener("visibilitychange", () => {
      if (document.visibilityState === "visible") void this.readAgain();
    });
    void this.findModels();
  }

  /** Takes what other tabs have changed. */
  private async readAgain(): Promise<void> {
    await this.library.readAgain((id) => this.answers.has(id));
    this.current = this.library.find(this.current.id) ?? this.current;
    this.changed();
  }

  /** Asks which models there are, and again for as long as the server is not ready. */
  async findModels(): Promise<void> {
    try {
      this.models = await api.models();
      this.problem = this.models.length > 0 ? null : "The server has no models.";
      for (const model of this.models) if (model.max_model_len) this.contexts.set(model.id, model.max_model_len);
      const known = (id: string | null) => this.models.some((model) => model.id === id);
      if (!this.current.model) {
        const last = remembered("model");
        this.current.model = (known(last) ? last : this.models[0]?.id) ?? "";
      }
      const health = await api.health();
      if (health === "loading") {
        this.problem = "The server is still loading its models.";
        clearTimeout(this.modelsTimer);
        this.modelsTimer = setTimeout(() => void this.findModels(), MODELS_TIME);
      }
    } catch (error) {
      this.problem = error instanceof Error ? error.message : String(error);
      this.askForKey(error, null);
    }
    this.changed();
  }

  /** Whether a model is loaded, as far as the page knows. */
  isLoaded(model: string): boolean {
    return this.models.some((known) => known.id === model && known.status?.value === "loaded");
  }

  /** Opens the dialog for the key where an error says that one is needed. */
  private askForKey(error: unknown, retry: (() => void) | null): void {
    if (!(error instanceof api.ApiError) || error.status !== 401) return;
    this.retry ??= retry;
    this.dialog = "key";
    this.changed();
  }

  giveKey(key: string, isKept: boolean): void {
    api.setKey(key, isKept);
    this.show("none");
    void this.findModels().then(() => {
      // The key may be wrong again; then it waits for the next.
      if (this.dialog === "key") return;
      this.retry?.();
      this.retry = null;
    });
  }

  // Which conversation.

  private openFromAddress(): void {
    const id = location.hash.match(/^#c=([\w-]+)$/)?.[1];
    const found = this.library.find(id);
    if (found && found !== this.current) this.open(found);
    else if (!id && this.current.messages.size > 0) this.begin();
  }

  open(conversation: Conversation): void {
    this.current = conversation;
    this.isDrawerOpen = false;
    this.address();
    this.changed();
  }

  /** A new conversation; it is kept once something has been said. */
  begin(): void {
    const model = this.current.model;
    this.current = newConversation(model, this.defaults());
    this.isDrawerOpen = false;
    this.address();
    this.changed();
  }

  private address(): void {
    const isKept = this.current.messages.size > 0;
    const wanted = isKept ? `#c=${this.current.id}` : "";
    if (location.hash !== wanted) history.pushState(null, "", wanted || location.pathname + location.search);
    document.title = titleOf(this.current) ? `${titleOf(this.current)} · Pippin` : "Pippin";
  }

  rename(conversation: Conversation, title: string): void {
    conversation.title = title.trim();
    conversation.named = conversation.title !== "";
    if (!conversation.named) conversation.title = titleOf(conversation);
    this.library.save(conversation);
    this.address();
    this.changed();
  }

  remove(conversation: Conversation): void {
    this.answers.get(conversation.id)?.stop();
    this.library.remove(conversation);
    if (conversation === this.current) this.begin();
    const undo = () => {
      this.library.keep(conversation);
      this.dismiss();
    };
    this.say("Conversation deleted", { label: "Undo", run: undo });
  }

  // What is set.

  defaults(): Setup {
    try {
      return { ...EMPTY, ...(JSON.parse(remembered("setup") ?? "{}") as Partial<Setup>) };
    } catch {
      return EMPTY;
    }
  }

  makeDefault(): void {
    const { system, parameters, tools, thinking } = this.current;
    remember("setup", JSON.stringify({ system, parameters, tools, thinking }));
    this.say("New chats begin like this one");
  }

  setUp(change: Partial<Setup>): void {
    Object.assign(this.current, change);
    this.library.save(this.current);
    this.changed();
  }

  setTheme(theme: Theme): void {
    this.theme = theme;
    remember("theme", theme === "system" ? null : theme);
    if (theme === "system") delete document.documentElement.dataset["theme"];
    else document.documentElement.dataset["theme"] = theme;
    this.changed();
  }

  /** Shows the list where it lies over the page, and goes to a part of it. */
  openDrawer(part: string): void {
    this.isDrawerOpen = true;
    this.changed();
    const focus = () => document.getElementById(part)?.focus();
    focus();
    // A list that was hidden takes the focus once it is drawn.
    if (document.activeElement?.id !== part) requestAnimationFrame(() => requestAnimationFrame(focus));
  }

  closeDrawer(): void {
    this.isDrawerOpen = false;
    this.changed();
  }

  show(dialog: Dialog): void {
    this.dialog = dialog;
    this.changed();
  }

  /** Answers with another model from now on, which is loaded at once: the choice says that it will be needed. */
  async choose(model: string): Promise<void> {
    this.current.model = model;
    remember("model", model);
    this.library.save(this.current);
    this.loading?.controller.abort();
    const loading = { model, begin: performance.now(), controller: new AbortController() };
    this.loading = loading;
    this.changed();
    try {
      const context = await api.load(model, loading.controller.signal);
      if (context) this.contexts.set(model, context);
    } catch (error) {
      if (!loading.controller.signal.aborted) {
        this.say(error instanceof Error ? error.message : String(error));
        this.askForKey(error, () => void this.choose(model));
      }
    }
    if (this.loading === loading) this.loading = null;
    void this.findModels();
  }

  // Talking.

  get answer(): Answer | undefined {
    return this.answers.get(this.current.id);
  }

  stop(): void {
    this.answer?.stop();
  }

  send(text: string): void {
    const parent = shown(this.current).at(-1)?.id ?? null;
    this.ask(add(this.current, parent, { role: "user", content: text }));
  }

  /** Another text in the place of one's own, as a branch of its own. */
  editQuestion(message: Message, text: string): void {
    this.ask(add(this.current, message.parent, { role: "user", content: text }));
  }

  /** Another text in the place of an answer; the old one stays as a branch. */
  editAnswer(message: Message, text: string): void {
    const { model, reasoning, thinking, toolCalls } = message;
    const copy: Partial<Message> = { edited: true };
    if (model) copy.model = model;
    if (reasoning) Object.assign(copy, { reasoning, thinking });
    if (toolCalls) copy.toolCalls = toolCalls;
    add(this.current, message.parent, { role: "assistant", content: text, ...copy });
    this.touch(this.current);
  }

  /** The results of an answer's calls, and what the model says to them. */
  giveResults(message: Message, results: string[]): void {
    let parent = message.id;
    (message.toolCalls ?? []).forEach((call, index) => {
      const content = results[index] ?? "";
      parent = add(this.current, parent, { role: "tool", content, toolCallId: call.id }).id;
    });
    this.ask(this.current.messages.get(parent)!);
  }

  regenerate(message: Message): void {
    this.write(add(this.current, message.parent, { role: "assistant", content: "", model: this.current.model }), false);
  }

  /** Goes on with an answer that was cut short. */
  resume(message: Message): void {
    delete message.error;
    delete message.finish;
    message.model = this.current.model;
    this.write(message, true);
  }

  switchTo(id: string): void {
    choose(this.current, id);
    this.library.save(this.current);
    this.changed();
  }

  private ask(question: Message): void {
    this.write(add(this.current, question.id, { role: "assistant", content: "", model: this.current.model }), false);
  }

  private touch(conversation: Conversation): void {
    conversation.updated = Date.now();
    conversation.title = titleOf(conversation);
    this.library.keep(conversation);
    if (conversation === this.current) this.address();
    this.changed();
  }

  private write(message: Message, continues: boolean): void {
    const conversation = this.current;
    // There is one answer at a time in a conversation.
    this.answers.get(conversation.id)?.stop();
    const answer = new Answer(conversation, message, () => {
      this.library.save(conversation);
      this.live(message.id);
    });
    this.answers.set(conversation.id, answer);
    this.announcement = "The answer is being written.";
    this.touch(conversation);
    void answer.run(continues).then((error) => this.ended(answer, error));
  }

  private ended(answer: Answer, error: api.ApiError | undefined): void {
    const { conversation, message } = answer;
    if (this.answers.get(conversation.id) === answer) this.answers.delete(conversation.id);
    this.announcement = error ? `There was an error: ${error.message}` : "The answer is finished.";
    if (error) this.askForKey(error, () => this.again(conversation, message));
    this.library.save(conversation);
    this.live(message.id);
    this.changed();
    // Which models are loaded may have changed.
    if (!error) void this.findModels().then(() => this.findContext(conversation.model));
  }

  /** Asks once more for an answer that failed before it began, or begins another beside it. */
  again(conversation: Conversation, message: Message): void {
    if (conversation !== this.current) return;
    if (message.content || message.reasoning || message.children.length > 0) return this.regenerate(message);
    delete message.error;
    message.model = conversation.model;
    this.write(message, false);
  }

  private async findContext(model: string): Promise<void> {
    if (this.contexts.has(model)) return;
    // It has just answered, so this loads nothing.
    const context = await api.load(model).catch(() => undefined);
    if (context) this.contexts.set(model, context);
    this.changed();
  }
}

export const app = new App();

/** Renders a component anew when the state changes. */
export function useApp(): App {
  const [, render] = useReducer((count: number) => count + 1, 0);
  useEffect(() => app.watch(() => render(undefined)), []);
  return app;
}
