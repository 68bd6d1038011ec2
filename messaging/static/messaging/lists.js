// Labels the cells of the admin's lists with their columns' titles, which stylesheets
// show where a row is a card: on phones.
document.addEventListener("DOMContentLoaded", () => {
  const titles = [...document.querySelectorAll("#result_list thead th")];
  for (const row of document.querySelectorAll("#result_list tbody tr")) {
    [...row.children].forEach((cell, place) => {
      const title = titles[place]?.querySelector(".text");
      cell.dataset.label = title?.textContent.trim() ?? "";
    });
  }
  document.querySelector("#result_list")?.classList.add("labelled");
});
