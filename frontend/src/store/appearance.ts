import { computed, effect, signal } from "@preact/signals";
import { theme } from "./preferences";

const query = globalThis.matchMedia?.("(prefers-color-scheme: light)");
const systemLight = signal(query?.matches ?? false);
query?.addEventListener("change", (event) => (systemLight.value = event.matches));

/** The look in force. */
export const look = computed<"dark" | "light">(() =>
  theme.value === "auto" ? (systemLight.value ? "light" : "dark") : theme.value,
);

/** Put the look where the style sheet finds it. */
export function applyLook(root: HTMLElement): void {
  effect(() => {
    root.dataset.theme = look.value;
  });
}
