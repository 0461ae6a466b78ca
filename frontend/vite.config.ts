import type { Plugin } from "vite";
import { defineConfig } from "vitest/config";

// The entry begins the conversation with the server and asks for the rest of the page; the browser fetches both at once
// (a "modulepreload" would compile the rest first).
const preloadTheRest: Plugin = {
  name: "preload-the-rest",
  transformIndexHtml: {
    order: "post",
    handler: (_html, { bundle }) =>
      Object.values(bundle ?? {})
        .filter((chunk) => chunk.type === "chunk" && chunk.isDynamicEntry)
        .map((chunk) => ({ tag: "link", attrs: { rel: "preload", as: "script", crossorigin: true, href: `./${chunk.fileName}` }, injectTo: "head" })),
  },
};

// Addresses are relative, so that the page works behind a proxy's sub-path; nothing is inlined, so that the
// server's policy may say `script-src 'self'`.
export default defineConfig({
  base: "./",
  plugins: [preloadTheRest],
  build: {
    outDir: "../spiral_server/page",
    emptyOutDir: true,
    target: "es2022",
    modulePreload: false,
    assetsInlineLimit: 0,
    reportCompressedSize: false,
  },
  test: { include: ["tests/**/*.test.ts"], environment: "node" },
});
