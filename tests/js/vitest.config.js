export default {
  cacheDir: ".node-js/.vite",
  test: { dir: "tests/js", globals: true, environment: "happy-dom" },
};
