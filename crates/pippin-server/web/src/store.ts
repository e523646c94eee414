// Where conversations are kept: in this browser's IndexedDB, or nowhere if it has none for us.

import type { Conversation } from "./tree";

const NAME = "pippin";
const STORE = "conversations";

export class Store {
  private constructor(private readonly database: IDBDatabase | null) {}

  static async open(): Promise<Store> {
    try {
      const request = indexedDB.open(NAME, 1);
      request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "id" });
      return new Store(await done(request));
    } catch {
      return new Store(null);
    }
  }

  /** Whether anything is kept when the page is closed. */
  get isLasting(): boolean {
    return this.database !== null;
  }

  async all(): Promise<Conversation[]> {
    const store = this.begin("readonly");
    return store ? done(store.getAll() as IDBRequest<Conversation[]>) : [];
  }

  async put(conversation: Conversation): Promise<void> {
    const store = this.begin("readwrite");
    if (store) await done(store.put(conversation));
  }

  async remove(id: string): Promise<void> {
    const store = this.begin("readwrite");
    if (store) await done(store.delete(id));
  }

  private begin(mode: IDBTransactionMode): IDBObjectStore | undefined {
    return this.database?.transaction(STORE, mode).objectStore(STORE);
  }
}

function done<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/** A setting of the page in `localStorage`, which a browser may refuse. */
export function remembered(name: string): string | null {
  try {
    return localStorage.getItem(`pippin.${name}`);
  } catch {
    return null;
  }
}

export function remember(name: string, value: string | null): void {
  try {
    if (value === null) localStorage.removeItem(`pippin.${name}`);
    else localStorage.setItem(`pippin.${name}`, value);
  } catch {
    // Then it holds until the page is closed.
  }
}
