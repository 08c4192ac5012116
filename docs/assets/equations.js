// Draws what arithmatex has marked as an equation, on every page that is opened.
document$.subscribe(() => {
  for (const element of document.querySelectorAll(".arithmatex")) {
    const tex = element.textContent.trim();
    if (!/^\\[([]/.test(tex)) continue; // drawn already
    katex.render(tex.slice(2, -2), element, { displayMode: tex.startsWith("\\["), throwOnError: false });
  }
});
