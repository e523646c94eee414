// Before anything is drawn: the colours that the reader has chosen.
try {
  const theme = localStorage.getItem("pippin.theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // Then the system's.
}
