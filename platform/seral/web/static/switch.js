// A personal link opened where somebody else is signed in: nothing changes before a button says so.
import { changePerson } from "./api.js";
import { startTheme } from "./theme.js";

const at = (id) => document.getElementById(id);

startTheme();
at("change").addEventListener("click", async () => {
  try {
    location.replace(await changePerson());
  } catch (error) {
    at("state").textContent = `Nothing has changed: ${error.message}.`;
  }
});
at("change").disabled = false;
