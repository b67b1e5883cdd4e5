// The colours of the page, before it is drawn.
const theme = localStorage.getItem("seewhy-theme");
if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
