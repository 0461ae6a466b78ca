import { defineConfig } from "vitest/config";

// Addresses are relative, so that the page works behind a proxy's sub-path; nothing is inlined, so that the
// server's policy may say `script-src 'self'`.
export default defineConfig({
  base: "./",
  build: {
    outDir: "../spiral_server/page",
    emptyOutDir: true,
    target: "es2022",
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0,
    reportCompressedSize: false,
  },
  test: { include: ["tests/**/*.test.ts"], environment: "node" },
});
