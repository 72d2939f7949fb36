import { defineConfig } from 'vitest/config';

// Three kinds of test, so that a person can run just the quick ones: `npx vitest --project unit`.
export default defineConfig({
  test: {
    fileParallelism: false,
    reporters: ['default'],
    projects: [
      {
        test: {
          name: 'unit',
          include: ['{vmm,merkle,native,cli,images}/**/*.test.ts', 'test/{sim,bench,framework}/**/*.test.ts'],
          testTimeout: 30_000,
        },
      },
      { test: { name: 'native', include: ['test/native/**/*.test.ts'], testTimeout: 120_000 } },
      {
        test: { name: 'e2e', include: ['test/e2e/**/*.test.ts'], testTimeout: 300_000, hookTimeout: 300_000 },
      },
    ],
  },
});
