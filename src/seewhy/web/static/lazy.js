// Pictures of a long grid are asked for when they come near to what is seen.
const watching = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    watching.unobserve(target);
    for (const image of target.querySelectorAll("[data-href]")) {
      image.setAttribute("href", image.dataset.href);
      image.removeAttribute("data-href");
    }
  }
}, { rootMargin: "600px" });

export function watch() {
  watching.disconnect();
  for (const image of document.querySelectorAll("[data-href]")) watching.observe(image.closest(".tile"));
}
